"""What this worker has in hand: each task from its admission to its end, renewed meanwhile."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from celery_toolkit_core.celery.deliveries import Follower
from celery_toolkit_core.errors import ToolkitError
from celery_toolkit_core.log import event

from . import telling, waking
from .listening import listener
from .signals import lock_lost, task_released
from .starting import NotBegun

if TYPE_CHECKING:
    from celery_toolkit_core.celery.deliveries import Delivery
    from celery_toolkit_core.celery.outcomes import Outcome

    from .claims import Claim
    from .store import Store

logger = logging.getLogger(__name__)

#: Most tasks renewed in one script; a worker with a large pool must not keep the server from others for long.
RENEWALS = 200

#: Ends after which the task comes again, with its id and its place.
_COMES_BACK: tuple[Outcome, ...] = ("retry", "requeued", "unknown")


class Visit(Follower):
    """A task in this worker, from its admission to its end; renewed by the keeper meanwhile.

    Args:
        claim: What it wants.
        app: The application.
        begins: Whether the start of the body must be told to the lock.
        holds: Whether it has got what it wants; else only its end is of interest.
    """

    def __init__(self, claim: Claim, app: Any, *, begins: bool = False, holds: bool = False) -> None:
        self.claim = claim
        self.app = app
        self.lost = False
        #: When it was last seen that it holds what it wants, by this process's own clock.
        self.kept = claim.asked
        #: The delivery, where the body is to be ended when what it holds is lost.
        self.delivery: Delivery | None = None
        self._begins = begins
        if holds:
            _visits[claim.token] = self

    def accepted(self, delivery: Delivery, pid: int) -> None:
        """Free the key of a task that is unique only until its body starts."""
        if self._begins and self.claim.lock is not None:
            self.claim.store.run("begin", [self.claim.lock.key], [self.claim.task_id])

    def lose(self) -> None:
        """Tell that another may run beside this one, once, and end the body where that is asked for."""
        self._tell_loss()
        if self.delivery is not None and self.delivery.request is not None:
            consumer = self.delivery.consumer
            # Celery ends tasks from its event loop, and this is the keeper's thread.
            consumer.timer.call_after(0, self.delivery.request.terminate, (consumer.pool,))

    def _tell_loss(self) -> None:
        self.lost = True
        claim, key = self.claim, self.claim.lock.label if self.claim.lock else ""
        event(logger, logging.WARNING, "lock_lost", task=claim.task.name, task_id=claim.task_id, key=key)
        lock_lost.send(sender=claim.task, task_id=claim.task_id, key=key)

    def ended(self, delivery: Delivery, outcome: Outcome) -> None:
        """Give back what it held; a process that stood still until now may have lost it and not know yet."""
        if self.claim.token in _visits and not self.lost and self.is_overdue(time.monotonic()):
            self._tell_loss()
        self._give_back(outcome, comes_back=outcome in _COMES_BACK)
        error = getattr(delivery.error, "exception", None)
        error = getattr(error, "exc", error)  # as prefork wraps it
        if outcome == "ignored" and isinstance(error, NotBegun):
            self._tell(delivery, *error.args)

    def handed_back(self, delivery: Delivery) -> None:
        """Likewise: another control has taken the message, and brings it back."""
        self._give_back("requeued", comes_back=True)

    def _tell(self, delivery: Delivery, how: str, wait: float, limit: str) -> None:
        task = self.claim.task
        if how == "parked":
            telling.parked(delivery, task, wait, retries=self.claim.retries)
        elif how == "dropped":
            telling.dropped(delivery, task, limit)
        else:
            telling.copy_dropped(delivery, task, how)

    def is_overdue(self, now: float) -> bool:
        """Whether its leases have ended since they were last renewed."""
        return now - self.kept > self.claim.store.settings.lease

    def _give_back(self, outcome: Outcome, *, comes_back: bool) -> None:
        _visits.pop(self.claim.token, None)

        def heard(answer: Any) -> None:
            if isinstance(answer, Exception):
                # Whether it was done is not known; once more changes nothing.
                self._finish(outcome, comes_back=comes_back)
            else:
                self._given_back(outcome, look=bool(answer))

        # Who waits for a place of a limit is woken by the answer, and shall not wait for that.
        if self.claim.limits_lane or not listener.is_there:
            self._finish(outcome, comes_back=comes_back)
        elif self.claim.finish_unheard(outcome, comes_back=comes_back, heard=heard):
            listener.listen()
        else:
            self._finish(outcome, comes_back=comes_back)

    def _finish(self, outcome: Outcome, *, comes_back: bool) -> None:
        try:
            look = self.claim.finish(outcome, comes_back=comes_back)
        except ToolkitError as error:
            # The leases end by themselves; the next of this key waits that long.
            event(logger, logging.WARNING, "release_failed", task_id=self.claim.task_id, error=str(error))
        else:
            self._given_back(outcome, look=look)

    def _given_back(self, outcome: Outcome, *, look: bool) -> None:
        if look:
            waking.waker(self.app).notice(0.0)
        task_released.send(sender=self.claim.task, task_id=self.claim.task_id, outcome=outcome)


#: What this worker has in hand, by token.
_visits: dict[str, Visit] = {}


def renew(store: Store) -> None:
    """Renew everything of one store that this worker has in hand: one round trip for each `RENEWALS` of them."""
    visits = [visit for visit in list(_visits.values()) if visit.claim.store is store]
    try:
        for start in range(0, len(visits), RENEWALS):
            _renew_some(store, visits[start : start + RENEWALS])
    finally:
        # Also when the server is away: by now the leases have ended there.
        now = time.monotonic()
        for visit in visits:
            if visit.is_overdue(now) and not visit.lost and visit.claim.token in _visits:
                visit.lose()


def _renew_some(store: Store, visits: list[Visit]) -> None:
    keys, args = [store.parking[3]], []
    for visit in visits:
        more_keys, more_args = visit.claim.renewal()
        keys += more_keys
        args += more_args
    asked = time.monotonic()
    for visit, kept in zip(visits, store.run("renew", keys, args), strict=True):
        if kept:
            visit.kept = asked
        elif not visit.lost and visit.claim.token in _visits:
            visit.lose()
