"""What runs in a worker beside the tasks: renewing leases, settling, and the periodic care of the backlog."""

from __future__ import annotations

import logging
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from celery import bootsteps, signals
from celery.app.task import Context
from celery.worker import state
from kombu.serialization import loads

from celery_toolkit_core.celery.messages import StoredMessage
from celery_toolkit_core.errors import Quarantined
from celery_toolkit_core.keeper import Keeper
from celery_toolkit_core.log import event

from .application import TICKET, ranch_of
from .backlog import queue_of
from .claims import Claims
from .errors import DeadTask

if TYPE_CHECKING:
    from celery import Celery

    from .application import Ranch

logger = logging.getLogger(__name__)

#: Seconds between two runs of the periodic care; also how long a worker must idle before it asks for missing tickets.
TEND_INTERVAL = 1.0

_lock = Lock()
_claims: WeakKeyDictionary[Ranch, Claims] = WeakKeyDictionary()


def claims_of(ranch: Ranch) -> Claims:
    """What this process has claimed for an application."""
    with _lock:
        found = _claims.get(ranch)
        if found is None:
            found = _claims[ranch] = Claims(ranch)
        return found


def install(app: Celery) -> None:
    """Make workers of this application understand tickets; once is enough, more does no harm."""
    from .tickets import TicketTask

    # Not app.tasks: that would finalise an application which is still being built.
    tasks = app._tasks  # type: ignore[attr-defined]  # not in the stubs
    if TICKET not in tasks:
        task = tasks[TICKET] = TicketTask()
        task.bind(app)
    app.steps["consumer"].add(RanchStep)


class RanchStep(bootsteps.StartStopStep):  # type: ignore[misc]  # untyped in the stubs
    """Keeps a worker's claims while it lives: also while the broker is away, and until the last body has ended."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._care = _care_of(parent.app)

    def start(self, parent: Any) -> None:
        """The consumer has started, or has a new connection."""
        self._care.consumer = parent
        self._care.start()

    def stop(self, parent: Any) -> None:
        """The consumer stops; bodies may go on, so renewing does too."""


class Care:
    """The threads of one worker. Renewing has its own: a broker that hangs must not cost us our leases.

    Args:
        app: The application.
    """

    def __init__(self, app: Celery) -> None:
        self.app = app
        self.claims = claims_of(ranch_of(app))
        self.consumer: Any = None
        self._renewing = Keeper("celery-ranch-leases")
        self._tending = Keeper("celery-ranch")
        self._renewing.every(self.claims.ranch.settings.lease / 3, self.claims.renew)
        self._tending.every(TEND_INTERVAL, self.tend)
        self.claims.send_with(self._tending.every(TEND_INTERVAL, self.claims.flush))
        signals.worker_shutdown.connect(self._end, weak=False)

    def start(self) -> None:
        """Start the threads, unless they run."""
        self._renewing.start()
        self._tending.start()

    def tend(self) -> None:
        """The periodic care of the backlog."""
        for task_id, message in self.claims.tend(self._idle_queues()):
            _fail(self.app, task_id, message, self.claims.ranch.settings.max_attempts)

    def _idle_queues(self) -> list[str]:
        """The queues in which this worker has found nothing for a while; none while it has work of any kind."""
        consumer = getattr(self.consumer, "task_consumer", None)
        if consumer is None or state.reserved_requests or monotonic() - self.claims.last_activity < TEND_INTERVAL:
            return []
        found = []
        for queue in list(consumer.queues):
            found.append(queue_of("", queue.name))
            if queue.exchange is not None and queue.exchange.name:
                found.append(queue_of(queue.exchange.name, queue.routing_key or ""))
        return found

    def _end(self, **_: Any) -> None:
        # Celery's core part has told by now what was received and never begun (its receiver was connected first).
        self._renewing.stop()
        self._tending.stop()
        try:
            self.claims.flush()
        except Exception as error:  # a worker that ends must end; leases see to the rest
            event(logger, logging.WARNING, "last_reports_not_sent", error=repr(error))
        signals.worker_shutdown.disconnect(self._end)


_cares: WeakKeyDictionary[Celery, Care] = WeakKeyDictionary()


def _care_of(app: Celery) -> Care:
    with _lock:
        found = _cares.get(app)
    if found is None:
        found = Care(app)
        with _lock:
            _cares[app] = found
    return found


def _fail(app: Celery, task_id: str, message: bytes, attempts: int) -> None:
    """Tell a dead task's result backend, links and chord, as Celery does for a failed one."""
    error = DeadTask(
        f"task {task_id} was lost with its worker {attempts} times and is not tried again",
        task_id=task_id,
        attempts=attempts,
    )
    event(logger, logging.ERROR, "task_dead", task_id=task_id, attempts=attempts)
    try:
        stored = StoredMessage.from_bytes(message)
        _, _, embedded = loads(
            stored.body, stored.content_type, stored.content_encoding, accept=app.conf.accept_content
        )
        request = Context(
            stored.headers,
            reply_to=stored.properties.get("reply_to"),
            correlation_id=stored.properties.get("correlation_id"),
            errbacks=embedded.get("errbacks"),
            chord=embedded.get("chord"),
            called_directly=False,
        )
    except (Quarantined, Exception):  # whatever is wrong with it, its result at least can be told
        request = None
    app.backend.mark_as_failure(task_id, error, request=request)
