"""Membership: which workers are on a ring, shared through Redis."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from celery_toolkit_core.parameters import milliseconds
from celery_toolkit_core.scripts import Scripts

from .errors import WorkerNameTaken
from .traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from celery_toolkit_core.keys import KeySpace

State = Literal["up", "draining", "gone"]

#: The keys of a ring, as its scripts take them.
KINDS = ("records", "tokens", "ends", "draining", "gone", "epoch", "traffic")


@dataclass(frozen=True, slots=True)
class Member:
    """One worker as the membership knows it.

    Attributes:
        name: Its name, and the name of its queue.
        state: ``up``; ``draining``: it lives and gets no new keys; ``gone``: dead or stopped.
        weight: Its share of the keys against a worker of weight 1.
        holder: Node name and process id, for people.
        companions: Endings of further queues of its own that it consumes, such as ``.wake``.
        seconds: How long its lease lasts; of a dead member how long ago it ended, negative.
    """

    name: str
    state: State
    weight: float = 1.0
    holder: str = ""
    companions: tuple[str, ...] = ()
    seconds: float = 0.0

    def record(self) -> str:
        """What the worker says of itself, as it is stored."""
        return json.dumps({"weight": self.weight, "holder": self.holder, "companions": self.companions})

    @classmethod
    def read(cls, name: bytes, state: bytes, record: bytes, ms: int) -> Member:
        """A member out of a script's answer; fields of a later version are passed over."""
        said = json.loads(record or b"{}")
        return cls(
            name.decode(),
            state.decode(),  # type: ignore[arg-type]  # the script answers with one of the three
            float(said.get("weight", 1.0)),
            str(said.get("holder", "")),
            tuple(said.get("companions", ())),
            ms / 1000,
        )


@dataclass(frozen=True, slots=True)
class View:
    """All members at one epoch."""

    epoch: int = 0
    members: Mapping[str, Member] = field(default_factory=dict)

    def in_state(self, state: State) -> list[Member]:
        """The members of one state."""
        return [member for member in self.members.values() if member.state == state]


@dataclass(frozen=True, slots=True)
class Joined:
    """A sign of life was taken.

    Attributes:
        name: The name that the worker has.
        fresh: Whether it did not have it before: at the start, and after its lease had ended or the data was lost.
    """

    name: str
    fresh: bool


class Membership:
    """The members of one ring in Redis; every method is one script, one round trip.

    Args:
        client: A Redis client that answers bytes.
        keys: Where the ring lives.
        lease: Seconds that a sign of life lasts.
    """

    def __init__(self, client: Any, keys: KeySpace, *, lease: float = 30.0) -> None:
        self.client = client
        self.key_space = keys
        self.lease = lease
        self._lease_ms = milliseconds("lease", lease)
        self._keys = [keys.key(kind) for kind in KINDS]
        self._scripts = Scripts(client, "celery_chain_router")

    def join(self, names: Sequence[str], token: str, record: str, *, slots: str = "", traffic: str = "") -> Joined:
        """Take the first free name, or give a sign of life for the name that `token` has.

        Args:
            names: Names in order of preference.
            token: Identifies this process.
            record: `Member.record` of this worker.
            slots: When all names are taken, or none is given: take the first free of ``<slots>1``, ``<slots>2``, ...
            traffic: `Traffic.record` of this worker.

        Raises:
            WorkerNameTaken: All names have a living owner and no slot is wanted. `remaining` of the error says for
                how many seconds, unless the owner gives a sign of life.
        """
        answer = self._scripts.run("join", self._keys, [token, self._lease_ms, record, slots, traffic, *names])
        if not answer[0]:
            holder = json.loads(answer[2] or b"{}").get("holder", "a worker")
            raise WorkerNameTaken(answer[1].decode(), holder, answer[3] / 1000)
        return Joined(answer[1].decode(), bool(answer[3]))

    def drain(self, name: str, token: str = "") -> bool:
        """Give a living member no new keys; False when there is none, or `token` is given and not its owner."""
        return bool(self._scripts.run("drain", self._keys, [name, token]))

    def leave(self, name: str, token: str) -> bool:
        """Give the name back; False when it is not this token's any more."""
        return bool(self._scripts.run("leave", self._keys, [name, token]))

    def view(self, known: View | None = None) -> View:
        """All members; `known` itself when nothing has changed since."""
        epoch, *rest = self._scripts.run("view", self._keys, [known.epoch if known else ""])
        if known and int(epoch) == known.epoch:
            return known
        members = [Member.read(*rest[index : index + 4]) for index in range(0, len(rest), 4)]
        return View(int(epoch), {member.name: member for member in members})

    def traffic(self) -> dict[str, Traffic]:
        """Living member -> what it has received lately, as of its last sign of life."""
        answer = self._scripts.run("traffic", self._keys)
        return {answer[index].decode(): Traffic.read(answer[index + 1]) for index in range(0, len(answer), 2)}
