"""Presence: a worker's place on the ring, from joining to leaving."""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING
from uuid import uuid4

from celery_toolkit_core.log import event

from .errors import WorkerNameTaken
from .membership import Member

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .membership import Membership
    from .traffic import Traffic

logger = logging.getLogger(__name__)

#: Automatic names are w1, w2, ...
SLOTS = "w"


class Presence:
    """One worker process as a member.

    Args:
        membership: The ring's members.
        hostname: The worker's node name, for people.
        weight: Its share of the keys against a worker of weight 1.
        companions: Tells the endings of further queues of its own that the worker consumes now.
    """

    def __init__(
        self, membership: Membership, hostname: str, weight: float, companions: Callable[[str], Sequence[str]]
    ) -> None:
        self.name = ""
        #: Tells what the worker has received lately, once it receives.
        self.traffic: Callable[[], Traffic] | None = None
        self._membership = membership
        self._holder = f"{hostname} (pid {os.getpid()})"
        self._weight = weight
        self._companions = companions
        #: Identifies this process.
        self.token = uuid4().hex

    def join(self, names: Sequence[str], *, slots: bool, waiting: Callable[[WorkerNameTaken], None]) -> str:
        """Take the first free of `names`, or else a slot if wanted.

        A name without slots whose owner may be dead is waited for until the owner's lease ends; an owner that gives a
        sign of life meanwhile is alive.

        Args:
            names: Names in order of preference.
            slots: Whether any free slot will do.
            waiting: Called once before the waiting begins.

        Raises:
            WorkerNameTaken: The owner is alive.
            RedisUnavailable: The server is away.
        """
        ends: float | None = None
        while True:
            try:
                self.name = self._membership.join(
                    names, self.token, self._record(names[0] if names else ""), slots=SLOTS if slots else ""
                ).name
                return self.name
            except WorkerNameTaken as error:
                seen = time.monotonic() + error.remaining
                if ends is None:
                    ends = seen
                    waiting(error)
                # The two readings of one end differ by the round trips; a renewal is a third of the lease at least.
                elif seen > ends + self._membership.lease / 6:
                    raise
                time.sleep(max(0.05, min(error.remaining, self._membership.lease / 10)))

    def claim(self, name: str) -> None:
        """Mean to be `name` although the server is away; the first sign of life takes it."""
        self.name = name

    def beat(self) -> None:
        """Give a sign of life.

        Raises:
            WorkerNameTaken: This process was taken for dead, and another has the name now.
        """
        traffic = self.traffic().record() if self.traffic else ""
        joined = self._membership.join([self.name], self.token, self._record(self.name), traffic=traffic)
        if joined.fresh:
            event(logger, logging.WARNING, "chain_router_rejoined", name=self.name)

    def drain(self) -> None:
        """Say that this worker ends soon and wants no new keys."""
        self._membership.drain(self.name, self.token)

    def leave(self) -> None:
        """Give the name back."""
        self._membership.leave(self.name, self.token)

    @property
    def record(self) -> str:
        """What this worker says of itself."""
        return self._record(self.name)

    def _record(self, name: str) -> str:
        return Member(name, "up", self._weight, self._holder, tuple(self._companions(name))).record()
