"""Partitions: a fixed number of queues; which one a key goes to depends on nothing but the key."""

from __future__ import annotations

from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from celery_toolkit_core.errors import InvalidParameter
from celery_toolkit_core.parameters import count as checked_count

from .names import worker_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: Of partitions; every worker that consumes many asks Redis for many lists at a time.
MOST = 1024

#: Of the two parameters of `ChainRouter`.
COUNT, PREFIX = 64, "chain"


class Partitions:
    """The queues ``<prefix>.0`` to ``<prefix>.<count - 1>``, each for an equal range of hashes.

    Args:
        count: How many; 1 to 1,024. Another number sends nearly every key elsewhere, so it is chosen once.
        prefix: What the queues' names begin with.

    Raises:
        InvalidParameter: Not a possible number or prefix.
    """

    def __init__(self, count: int = COUNT, prefix: str = PREFIX) -> None:
        self.count = checked_count("partitions", count, most=MOST)
        try:
            self.prefix = worker_name(prefix)
        except InvalidParameter as error:
            raise InvalidParameter("partition_prefix", prefix, error.remedy) from None
        self._queues = tuple(f"{self.prefix}.{number}" for number in range(self.count))
        self._numbers = {queue: number for number, queue in enumerate(self._queues)}

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits: two that show the same send every key to the same queue."""
        return blake2b(f"{self.prefix}\0{self.count}".encode(), digest_size=8).hexdigest()

    def at(self, position: int) -> str:
        """The queue of a hash, from 0 to 2**64 - 1."""
        return self._queues[(position * self.count) >> 64]

    def queue(self, number: int) -> str:
        """The queue of a partition."""
        return self._queues[number]

    def number(self, queue: str) -> int | None:
        """The partition of a queue, or of a companion of one, such as ``chain.7.wake``; ``None`` of any other queue."""
        found = self._numbers.get(queue)
        if found is None and queue.startswith(f"{self.prefix}."):
            first = queue[len(self.prefix) + 1 :].partition(".")[0]
            return self._numbers.get(f"{self.prefix}.{first}")
        return found

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[str]:
        return iter(self._queues)

    def __contains__(self, queue: object) -> bool:
        return queue in self._numbers


class PartitionTable:
    """The table of partition mode: it never changes, and needs neither a Redis nor to know any worker."""

    #: A producer shares nothing.
    sharing = None

    #: There is nothing to attach.
    is_attached = True

    def __init__(self, partitions: Partitions) -> None:
        self.lookup = partitions

    def attach(self, app: Any) -> None:
        """Nothing: workers alone have something to share, see `ownership`."""

    def is_ours(self, queue: str) -> bool:
        """Whether it is a partition's queue."""
        return queue in self.lookup

    def companions(self, queue: str) -> Sequence[str]:
        """Where else a message of that queue may have come from: the one companion that other packages make."""
        return (".wake",)
