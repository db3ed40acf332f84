"""What runs in a worker beside the tasks: renewing leases, settling, and the periodic care of the backlog."""

from __future__ import annotations

import logging
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Any

from celery.signals import celeryd_after_setup
from celery.worker import state

from celery_toolkit_core.celery import worker
from celery_toolkit_core.connection import server_name, warn_if_evicting
from celery_toolkit_core.keeper import Keeper
from celery_toolkit_core.log import event

from .application import ranch_of
from .backlog import queue_of
from .claims import Claims
from .errors import DeadTask
from .results import tell_failed
from .signals import task_dead
from .ticket_office import TICKET
from .unacked import note_no_tickets

if TYPE_CHECKING:
    from celery import Celery

    from .application import Ranch

logger = logging.getLogger(__name__)

#: Seconds between two runs of the periodic care; also how long a worker must idle before it asks for missing tickets.
TEND_INTERVAL = 1.0

_lock = Lock()


def claims_of(ranch: Ranch) -> Claims:
    """What this process has claimed for an application."""
    with _lock:
        if ranch.claims is None:
            ranch.claims = Claims(ranch)
        return ranch.claims


def install(app: Celery) -> None:
    """Make workers of this application understand tickets; once is enough, more does no harm."""
    from .tickets import TicketTask

    # Not app.tasks: that would finalise an application which is still being built.
    tasks = app._tasks  # type: ignore[attr-defined]  # not in the stubs
    if TICKET not in tasks:
        task = tasks[TICKET] = TicketTask()
        task.bind(app)
    worker.install(app, RanchStep)


class RanchStep(worker.WorkerStep):
    """Keeps a worker's claims while it lives: also while the broker is away, and until the last body has ended."""

    prefix = "ranch"
    replaces = ("celery-toolkit-ranch", "celery-ranch")

    def prepare(self, consumer: Any) -> None:
        """Give the keeper its jobs. Renewing has a thread of its own: a broker that hangs must not cost us leases."""
        self.claims = claims_of(ranch_of(consumer.app))
        client = self.claims.ranch.backlog.client
        warn_if_evicting(client, logger)
        where = {"redis": server_name(client), "prefix": self.claims.ranch.settings.redis_prefix}
        event(logger, logging.INFO, "ranch_ready", **where)
        self.renewing = Keeper("ranch-leases")
        self.renewing.every(self.claims.ranch.settings.lease / 3, self.claims.renew)
        self.keeper.every(TEND_INTERVAL, self.tend)
        self._metrics = self._serve_metrics()
        self.claims.send_with(self.keeper.every(TEND_INTERVAL, self.claims.flush))

    def start(self, consumer: Any) -> None:
        """The consumer has started, or has a new connection."""
        super().start(consumer)
        self.consumer = consumer
        # What waited meanwhile has its tickets at the broker: only who finds nothing for a while may miss any.
        self.claims.last_activity = monotonic()
        note_no_tickets(consumer.task_consumer.channel)
        self.renewing.start()

    def stop(self, consumer: Any) -> None:
        """The broker is away, or this worker takes no more: it serves no queue."""
        self.consumer = None

    def finish(self, consumer: Any) -> None:
        """The last body has ended: send the last reports."""
        self.renewing.stop()
        self.claims.flush()
        if self._metrics is not None:
            self._metrics.shutdown()
            self._metrics.server_close()

    def _serve_metrics(self) -> Any:
        if not self.claims.ranch.settings.metrics_enabled:
            return None
        from .metrics import install_in_worker

        return install_in_worker(self.claims.ranch)

    def tend(self) -> None:
        """The periodic care of the backlog."""
        attempts = self.claims.ranch.settings.max_attempts
        consumed = self._queues()
        idle = consumed if self._is_idle() else []
        for task_id, message in self.claims.tend(idle, [] if idle else consumed):
            _fail(self.claims.ranch.app, task_id, message, attempts)

    def _queues(self) -> list[str]:
        """The queues that this worker consumes; none while it has no broker, and from a warm shutdown on."""
        consumer = getattr(self.consumer, "task_consumer", None)
        found = []
        for queue in list(consumer.queues) if consumer is not None else ():
            found.append(queue_of("", queue.name))
            if queue.exchange is not None and queue.exchange.name:
                found.append(queue_of(queue.exchange.name, queue.routing_key or ""))
        return found

    def _is_idle(self) -> bool:
        """Whether this worker has found nothing for a while, and has no work of any kind."""
        return not state.reserved_requests and monotonic() - self.claims.last_activity >= TEND_INTERVAL


@celeryd_after_setup.connect(weak=False)
def warn_of_missing_bases(instance: Any, **_: Any) -> None:
    """Warn of each task that has options for us and not our base: Celery takes any option, and no call would wait."""
    for task in instance.app.tasks.values():
        for option in ("lru_key", "lru_cost"):
            if getattr(task, option, None) is not None and not hasattr(task, "ranch_options"):
                fields = {"task": task.name, "option": option, "needs_base": "RanchTask"}
                event(logger, logging.WARNING, "option_without_effect", **fields)


def _fail(app: Celery, task_id: str, message: bytes, attempts: int) -> None:
    error = DeadTask(
        f"task {task_id} was lost with its worker {attempts} times and is not tried again",
        task_id=task_id,
        attempts=attempts,
    )
    event(logger, logging.ERROR, "task_dead", task_id=task_id, attempts=attempts)
    task_dead.send(sender=None, task_id=task_id, attempts=attempts)
    tell_failed(app, task_id, message, error)
