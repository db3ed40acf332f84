"""Sharing: what a process knows of the membership, and how it keeps that fresh without making anyone wait."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from celery_toolkit_core.log import event

from .membership import View

if TYPE_CHECKING:
    from collections.abc import Callable

    from .membership import Membership

logger = logging.getLogger(__name__)

#: Seconds between two looks at the epoch, at least.
INTERVAL = 1.0


class Sharing:
    """Reads the membership: at the first call in the caller's thread, from then on in a short thread of its own.

    There is neither a lock nor a lasting thread, so nothing breaks when the process forks.

    Args:
        connect: Makes the membership to read from, at the first look that succeeds.
        adopt: Called with each new view, in the thread that has read it.
    """

    def __init__(self, connect: Callable[[], Membership], adopt: Callable[[View], None]) -> None:
        self.view = self._adopted = View()
        self._connect = connect
        self._membership: Membership | None = None
        self._adopt = adopt
        self._due: float | None = None
        self._is_stale = False

    @property
    def membership(self) -> Membership:
        """The membership itself.

        Raises:
            RedisUnavailable: A cluster, whose map is needed to build the client, does not answer.
        """
        if self._membership is None:
            self._membership = self._connect()
        return self._membership

    def touch(self) -> None:
        """Look at the epoch when a second has passed; apart from the very first time this never waits."""
        now = time.monotonic()
        if self._due is None:
            # Threads that come here at the same time all look: none may go on without a ring.
            self.refresh()
            self._due = now + INTERVAL
        elif now >= self._due:
            # Two threads may both come here: then both look, which does no harm.
            self._due = now + INTERVAL
            try:
                threading.Thread(target=self.refresh, name="chain-router-refresh", daemon=True).start()
            except RuntimeError:  # the interpreter is ending and starts no threads: the last view serves
                logger.debug("no thread to refresh the ring")

    def refresh(self) -> None:
        """Look at the epoch now; whatever goes wrong, the last view stays."""
        try:
            view = self.membership.view(self.view)
        except Exception as error:  # noqa: BLE001  # a server that is away must not disturb who sends tasks
            if not self._is_stale:
                event(logger, logging.WARNING, "chain_router_ring_stale", error=str(error))
            self._is_stale = True
            return
        if self._is_stale:
            event(logger, logging.INFO, "chain_router_ring_fresh", epoch=view.epoch)
        self._is_stale = False
        # Never backwards: a slow thread may come late, and a server that has lost its data is rebuilt by the workers.
        if view.epoch > self.view.epoch:
            self.view = view
        if self._adopted is not self.view:
            # Also when another thread is about to: whoever returns from here goes by this view.
            view = self.view
            self._adopt(view)
            self._adopted = view
