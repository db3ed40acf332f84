"""Ownership: which worker process has which partition, by lease and fence, in Redis."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from celery_toolkit_core.parameters import milliseconds
from celery_toolkit_core.scripts import Scripts

from .errors import PartitionCountDiffers, WorkerNameTaken
from .membership import KINDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .membership import Membership

_KINDS = (*KINDS, "table", "targets", "owners", "homes", "away")


@dataclass(frozen=True, slots=True)
class Beat:
    """What a sign of life was answered with.

    Attributes:
        epoch: Rises with every change of who is there or who has what.
        fresh: Whether this process had lost its name meanwhile.
        owned: Partition -> fence, of all that this process has. ``None``: as at the epoch that was given.
        targets: The partitions that this worker is to have. ``None``: likewise.
    """

    epoch: int
    fresh: bool
    owned: Mapping[int, int] | None = None
    targets: frozenset[int] | None = None


@dataclass(frozen=True, slots=True)
class Owned:
    """One partition as an operator sees it.

    Attributes:
        number: The partition.
        owner: Name of the worker that has it, or had it last; empty when it was released.
        fence: The fence of that ownership.
        lives: Whether the owner's lease lasts.
        target: Name of the worker that is to have it.
    """

    number: int
    owner: str
    fence: int
    lives: bool
    target: str


class Ownership:
    """The partitions of one ring in Redis; every method is one script, one round trip.

    Args:
        membership: The workers, which live under the same hash tag.
        count: How many partitions there are.
    """

    def __init__(self, membership: Membership, count: int) -> None:
        self.membership = membership
        self.count = count
        keys = membership.key_space
        self._lease_ms = milliseconds("lease", membership.lease)
        self._keys = [keys.key(kind) for kind in _KINDS]
        self._scripts = Scripts(membership.client, "celery_chain_router")

    def beat(self, name: str, token: str, record: str, known: int | None = None) -> Beat:
        """Give a sign of life: the name and all partitions of this process last another lease.

        Args:
            name: The worker's name.
            token: Identifies this process.
            record: `Member.record` of this worker.
            known: The epoch of the last answer, for a shorter one when nothing has changed.

        Raises:
            WorkerNameTaken: Another process has the name.
            PartitionCountDiffers: Living workers have another number of partitions.
        """
        arguments = [name, token, self._lease_ms, record, self.count, "" if known is None else known]
        kind, *rest = self._scripts.run("partition_beat", self._keys, arguments)
        if kind == 0:
            raise WorkerNameTaken(name, json.loads(rest[0] or b"{}").get("holder", "a worker"), rest[1] / 1000)
        if kind < 0:
            raise PartitionCountDiffers(self.count, rest[0])
        if len(rest) == 2:
            return Beat(int(rest[0]), bool(rest[1]))
        return Beat(int(rest[0]), bool(rest[1]), _pairs(rest[2]), frozenset(map(int, rest[3])))

    def look(self) -> int:
        """Take the dead off and say the epoch."""
        return int(self._scripts.run("partition_look", self._keys))

    def acquire(self, name: str, token: str) -> dict[int, int]:
        """Take all that this worker is to have and nobody has: partition -> fence, those that it had included."""
        return _pairs(self._scripts.run("partition_acquire", self._keys, [name, token]))

    def release(self, token: str, fences: Mapping[int, int]) -> int:
        """Give partitions up, each under its fence; how many were this process's."""
        arguments = [item for pair in fences.items() for item in pair]
        return int(self._scripts.run("partition_release", self._keys, [token, *arguments]))

    def stand_down(self, name: str, token: str, grace: float) -> bool:
        """Say that this worker ends soon, and for how many seconds its partitions wait for its name to come back."""
        grace_ms = milliseconds("grace", grace, zero=True)
        return bool(self._scripts.run("partition_stand_down", self._keys, [name, token, grace_ms]))

    def view(self) -> list[Owned]:
        """All partitions."""
        flat = self._scripts.run("partition_view", self._keys)
        rows = [flat[index : index + 5] for index in range(0, len(flat), 5)]
        return [
            Owned(number, owner.decode(), fence, bool(lives), target.decode())
            for number, owner, fence, lives, target in rows
        ]


def _pairs(flat: list[Any]) -> dict[int, int]:
    return {int(flat[index]): int(flat[index + 1]) for index in range(0, len(flat), 2)}
