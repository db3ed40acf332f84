"""Tenure: what one worker process holds, and until when it may be sure of it."""

from __future__ import annotations

import logging
import time
from threading import Lock
from typing import TYPE_CHECKING

from celery_toolkit_core.log import event

from .guard import Until

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .ownership import Ownership
    from .presence import Presence

logger = logging.getLogger(__name__)

#: Part of the lease after which this process, by its own clock, is no longer sure of it. Counted from before the sign
#: of life was sent, so that we stop a little before the server gives the partitions to somebody else.
SURE = 0.95


class Tenure:
    """The partitions of this process, as the last sign of life has confirmed them.

    Nothing here needs a round trip to be asked: after a freeze the clock has gone on, and the answer is no.

    Args:
        ownership: The partitions in Redis.
        presence: This worker's name and token.
    """

    def __init__(self, ownership: Ownership, presence: Presence) -> None:
        self.ownership = ownership
        self.presence = presence
        #: Partition -> fence, of all that this worker may work on.
        self.held: dict[int, int] = {}
        #: The partitions that it is to have.
        self.targets: frozenset[int] = frozenset()
        #: The epoch that all this is of.
        self.epoch: int | None = None
        self._sure_until = 0.0
        self._has_lost = False
        self._lock = Lock()

    @property
    def is_sure(self) -> bool:
        """Whether the lease certainly lasts."""
        return time.monotonic() < self._sure_until

    def fence(self, partition: int) -> int | None:
        """The fence of a partition while this process certainly holds it."""
        return self.held.get(partition) if self.is_sure else None

    def until(self) -> Until:
        """Until when this process is sure, as things are now; for a child, which does not hear of later signs."""
        return Until(self._sure_until)

    def beat(self) -> dict[int, int]:
        """Give a sign of life; what has been lost meanwhile, with the fences it had.

        Raises:
            WorkerNameTaken: Another process has the name: all is lost.
            RedisUnavailable: No answer; nothing is known to be lost, but it is no longer sure when the lease ends.
        """
        presence = self.presence
        with self._lock:
            before = time.monotonic()
            beat = self.ownership.beat(presence.name, presence.token, presence.record, self.epoch)
            lost = {}
            if beat.owned is not None and beat.targets is not None:
                self.epoch, self.targets = beat.epoch, beat.targets
                lost = {number: fence for number, fence in self.held.items() if beat.owned.get(number) != fence}
                self._drop(lost)
            self._has_lost |= bool(lost) or beat.fresh
            # Last: nobody may believe to hold what is lost.
            self._sure_until = before + SURE * self.ownership.membership.lease
        if beat.fresh:
            event(logger, logging.WARNING, "chain_router_rejoined", name=presence.name)
        return lost

    def lose(self) -> dict[int, int]:
        """Another process has the name: everything, with the fences it had."""
        with self._lock:
            self._has_lost = True
            lost, self.held = self.held, {}
        return lost

    def acquire(self) -> dict[int, int]:
        """Take what is to be had and free: partition -> fence of what is new. It counts from `hold` on."""
        with self._lock:
            self._has_lost = False
        mine = self.ownership.acquire(self.presence.name, self.presence.token)
        return {number: fence for number, fence in mine.items() if self.held.get(number) != fence}

    def hold(self, fences: Mapping[int, int]) -> bool:
        """Begin to work on what `acquire` has brought; False when something was lost since, maybe of these."""
        with self._lock:
            if not self._has_lost:
                self.held = {**self.held, **fences}
            return not self._has_lost

    def release(self, fences: Mapping[int, int]) -> None:
        """Give these up; nothing of them may be in hand."""
        with self._lock:
            self._drop(fences)
        self.ownership.release(self.presence.token, fences)

    def _drop(self, numbers: Mapping[int, int]) -> None:
        self.held = {number: fence for number, fence in self.held.items() if number not in numbers}
