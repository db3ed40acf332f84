"""What this worker has claimed: leases to renew, reports to settle, tickets to issue. One object per worker process."""

from __future__ import annotations

import logging
from collections import deque
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING

from celery.worker import state

from celery_toolkit_core.celery.deliveries import Follower
from celery_toolkit_core.celery.outcomes import outcome_of
from celery_toolkit_core.log import event

from .application import issue_quietly
from .entries import Answer, Claimed, Report, Tickets
from .signals import task_settled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery_toolkit_core.celery.deliveries import Delivery
    from celery_toolkit_core.celery.outcomes import Outcome
    from celery_toolkit_core.keeper import Job

    from .application import Ranch

logger = logging.getLogger(__name__)

#: Seconds that a report waits for a claim that carries it.
SEND_DELAY = 0.05

#: Reports that one script takes; more wait for the next.
_MOST_REPORTS = 200


class Claims:
    """Claims tasks and settles them, from the worker's main process.

    Reports ride on the next claim; `flush`, called by the keeper's thread, sees to those that no claim carries.
    A report leaves the list only when Redis has it: repeated, it changes nothing.

    Args:
        ranch: The application's ranch.
    """

    def __init__(self, ranch: Ranch) -> None:
        self.ranch = ranch
        self.last_activity = monotonic()
        self._held: dict[str, str] = {}
        self._reports: deque[Report] = deque()
        self._tickets: deque[Tickets] = deque()
        self._lock = Lock()
        # Reports are on their way: what is told of an entry must not overtake what was told of it before.
        self._carrying = Lock()
        self._sending: Job | None = None
        self._is_sending_soon = False

    def send_with(self, job: Job) -> None:
        """The keeper's job that runs `flush`; it is hurried when there is something to send."""
        self._sending = job

    def claim(self, queue: str, ticket: str, token: str) -> Answer:
        """Claim for a ticket, carrying the reports so far.

        Raises:
            RedisUnavailable: Redis is away; the reports are kept.
        """
        self.last_activity = monotonic()
        settings = self.ranch.settings
        # While the keeper's thread sends some, it sends the rest as well.
        carries = self._carrying.acquire(blocking=False)
        reports = self._take() if carries else []
        try:
            answer = self.ranch.backlog.claim(
                queue, ticket, token, lease=settings.lease, max_attempts=settings.max_attempts, reports=reports
            )
        except BaseException:
            self._put_back(reports)
            raise
        finally:
            if carries:
                self._carrying.release()
        self._issue(answer.tickets)
        self._note_late(answer.late)
        if answer.claimed is not None:
            with self._lock:
                self._held[answer.claimed.entry] = token
        return answer

    def report(self, report: Report) -> None:
        """Have a report sent soon."""
        if report.kind in ("end", "lost"):
            with self._lock:
                self._held.pop(report.entry, None)
            self.last_activity = monotonic()
        self._reports.append(report)
        self._send_soon()

    def ticket_for(self, address: bytes) -> None:
        """Have one ticket published soon."""
        self._issue([Tickets(address, 1)])

    def flush(self) -> None:
        """Send what no claim has carried, then publish the tickets that scripts have asked for."""
        self._is_sending_soon = False
        while self._reports:
            with self._carrying:
                reports = self._take()
                if not reports:
                    break
                try:
                    late, tickets = self.ranch.backlog.report(reports)
                except BaseException:
                    self._put_back(reports)
                    raise
            self._note_late(late)
            self._issue(tickets)
        tickets = []
        while self._tickets:
            tickets.append(self._tickets.popleft())
        if tickets and not issue_quietly(self.ranch, tickets):
            self._tickets.extend(tickets)

    def renew(self) -> None:
        """Renew the leases of everything that this worker holds."""
        with self._lock:
            held = list(self._held.items())
        for at in range(0, len(held), _MOST_REPORTS):
            for entry in self.ranch.backlog.renew(held[at : at + _MOST_REPORTS], lease=self.ranch.settings.lease):
                with self._lock:
                    lost = self._held.pop(entry, None)
                if lost is not None:
                    event(logger, logging.WARNING, "claim_lost", entry=entry)

    def tend(self, idle_queues: Sequence[str] = (), busy_queues: Sequence[str] = ()) -> list[tuple[str, bytes]]:
        """Run the periodic care; the tasks (id, message) that have died of too many attempts."""
        settings = self.ranch.settings
        care = self.ranch.backlog.tend(
            max_attempts=settings.max_attempts,
            client_ttl=settings.redis_key_ttl,
            idle_queues=idle_queues,
            busy_queues=busy_queues,
        )
        if care.returned or care.abandoned or care.dead:
            event(
                logger,
                logging.WARNING,
                "claims_ended_with_their_worker",
                returned=care.returned,
                abandoned=care.abandoned,
                dead=len(care.dead),
            )
        self._issue(care.tickets)
        self.flush()
        return care.dead

    def _take(self) -> list[Report]:
        reports: list[Report] = []
        with self._lock:
            while self._reports and len(reports) < _MOST_REPORTS:
                reports.append(self._reports.popleft())
        # That a body has begun is of no interest once it has ended.
        ended = {report.entry for report in reports if report.kind == "end"}
        return [report for report in reports if report.kind != "start" or report.entry not in ended]

    def _put_back(self, reports: list[Report]) -> None:
        with self._lock:
            self._reports.extendleft(reversed(reports))

    def _issue(self, tickets: Sequence[Tickets]) -> None:
        if tickets:
            self._tickets.extend(tickets)
            self._send_soon()

    def _send_soon(self) -> None:
        if self._sending is not None and not self._is_sending_soon:
            self._is_sending_soon = True
            self._sending.soon(SEND_DELAY)

    def _note_late(self, late: int) -> None:
        if late:
            event(logger, logging.INFO, "reports_too_late", count=late)


class Settler(Follower):
    """Reports the life of one claimed task.

    Args:
        claims: Where to.
        claimed: The task.
        early: Celery acknowledges before the body.
    """

    def __init__(self, claims: Claims, claimed: Claimed, early: bool) -> None:
        self._claims = claims
        self._claimed = claimed
        self._early = early
        self._started: float | None = None

    def accepted(self, delivery: Delivery, pid: int) -> None:
        """The body begins."""
        self._started = monotonic()
        if self._early:
            self._report("start")

    def ended(self, delivery: Delivery, outcome: Outcome) -> None:
        """Settle it."""
        seconds = None
        if self._started is not None:
            seconds = delivery.runtime if delivery.runtime is not None else monotonic() - self._started
        if outcome == "requeued" and _killed(delivery):
            self._end(delivery, "lost", seconds, kind="lost")
        elif outcome == "requeued":
            self._end(delivery, "requeued" if self._started is not None else "released", seconds)
        elif outcome in ("revoked", "terminated"):
            self._end(delivery, "revoked", seconds)
        elif outcome == "expired":
            self._end(delivery, "expired", seconds)
        else:
            self._end(delivery, "done", seconds)

    def handed_back(self, delivery: Delivery) -> None:
        """Another control has taken it: the turn is given back."""
        self._end(delivery, f"handed_back {delivery.why}".rstrip(), None)

    def _end(self, delivery: Delivery, outcome: str, seconds: float | None, kind: str = "end") -> None:
        task_settled.send(
            sender=delivery.task_name,
            task_id=delivery.task_id,
            lru_key=self._claimed.label,
            outcome=outcome.partition(" ")[0],
            seconds=seconds,
        )
        self._report(kind, outcome, "" if seconds is None else repr(float(seconds)))

    def _report(self, kind: str, a: str = "", b: str = "") -> None:
        self._claims.report(Report(kind, self._claimed.entry, self._claimed.token, a, b))


def _killed(delivery: Delivery) -> bool:
    """Whether its process died under the body, and not because the worker ends."""
    if delivery.error is None or state.should_terminate not in (None, False):
        return False
    return outcome_of(delivery.error.exception) == "lost"


def quarantine(claims: Claims, claimed: Claimed) -> None:
    """Put a claimed task aside whose bytes cannot be read."""
    claims.report(Report("end", claimed.entry, claimed.token, "quarantined"))
