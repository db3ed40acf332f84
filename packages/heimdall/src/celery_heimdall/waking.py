"""The thread of a worker that wakes parked tasks when their time has come."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any
from uuid import uuid4
from weakref import WeakKeyDictionary

from kombu import Queue

from celery_toolkit_core.celery.forwarding import forwarded
from celery_toolkit_core.celery.messages import StoredMessage
from celery_toolkit_core.errors import Quarantined
from celery_toolkit_core.keeper import Keeper
from celery_toolkit_core.log import event

from .claims import spread
from .headers import ROUTE, WAKE
from .store import settings_of, stores

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery import Celery

    from celery_toolkit_core.keeper import Job

    from .store import Store

logger = logging.getLogger(__name__)

#: A queue's woken tasks come back through a queue of this name, past those that wait in the queue itself.
SUFFIX = ".wake"
#: Most tasks woken from one lane, and most lanes looked at, in one go.
BATCH = 50

_wakers: WeakKeyDictionary[Any, Waker] = WeakKeyDictionary()


class Waker:
    """Wakes parked tasks of one application; each lane's decision is one script.

    Every worker has one, and any may find a lane due: the one who parked a task, the one whose task gave a place back.
    Of those with nothing of their own to look for, one keeps watch (due.lua).

    Args:
        app: The application.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._name = uuid4().hex[:8]
        self._turn = 0
        #: How many it has woken, and how many it has put back in line because nobody took them up.
        self.woken = self.late = 0
        # A thread of its own: while the broker is away a publish may take long, and leases must be renewed meanwhile.
        self._keeper = Keeper("heimdall-waker")
        self._job: Job | None = None

    def start(self) -> None:
        """Start the thread, unless it runs."""
        if self._job is None:
            self._job = self._keeper.every(settings_of(self._app).sweep, self._look_everywhere, at_once=True)
        self._keeper.start()

    def stop(self) -> None:
        """End the thread; what is due meanwhile is other workers' business."""
        self._keeper.stop()

    def notice(self, seconds: float) -> None:
        """Look in so many seconds, or earlier if that was planned."""
        if self._job is not None:
            self._job.soon(seconds)

    def _look_everywhere(self) -> None:
        for store in stores(self._app):
            self.notice(self.look(store))

    def look(self, store: Store) -> float:
        """Wake what is due in one store; returns the seconds until the next look."""
        sweep_ms = round(settings_of(self._app).sweep * 1000)
        keys = [*store.parking, store.space.key("watch")]
        lanes, late, next_ms = store.run("due", keys, [BATCH, self._name, max(1, sweep_ms // 2)])
        waits = [sweep_ms]
        if next_ms >= 0:
            waits.append(next_ms)
        for task_id, lane, text in _by(3, late):
            if not text:
                self._put_aside(store, task_id, "what we knew of it cannot be read")
                continue
            spec = json.loads(text)
            if store.run("repark", [*store.parking, spec["keys"][0]], [task_id, lane, text]):
                event(logger, logging.WARNING, "task_not_taken_up", task_id=task_id.decode())
                self.late += 1
                waits.append(0)
        for lane, text in _by(2, lanes):
            wait_ms = self._wake(store, lane, json.loads(text))
            if wait_ms >= 0:
                waits.append(wait_ms)
        return float(min(waits)) / 1000

    def _wake(self, store: Store, lane: bytes, spec: dict[str, Any]) -> int:
        self._turn += 1
        args = [lane, BATCH, round(store.settings.wake_timeout * 1000), f"{self._name}{self._turn}"]
        if "hung_ms" in spec:
            answer = store.run("wake_lock", [*store.parking, *spec["keys"]], [*args, spec["hung_ms"]])
        else:
            args.append(spread(spec.get("spread", 0)))
            answer = store.run("wake_limits", [*store.parking, *spec["keys"]], [*args, *spec["args"]])
        for task_id, token, queue, data in _by(4, answer[1:]):
            self._publish(store, task_id, token.decode(), queue.decode(), data)
            self.woken += 1
        return int(answer[0])

    def _publish(self, store: Store, task_id: bytes, token: str, queue: str, data: bytes) -> None:
        if not token:
            self._put_aside(store, task_id, "what we knew of it cannot be read")
            return
        try:
            stored = StoredMessage.from_bytes(data)
        except Quarantined as error:
            self._put_aside(store, task_id, error.reason)
            return
        today, changes = forwarded(self._app, queue, stored.headers)
        route = [stored.exchange, stored.routing_key] if today == queue else ["", today]
        woken = stored.with_headers(**{**changes, WAKE: token, ROUTE: route})
        woken.publish(self._app, queue=wake_queue(self._app, today))
        event(logger, logging.DEBUG, "task_on_its_way", task_id=task_id.decode(), queue=today)

    def _put_aside(self, store: Store, task_id: bytes, reason: str) -> None:
        store.run("quarantine", [*store.parking, store.space.key("quarantine")], [task_id])
        event(logger, logging.ERROR, "task_quarantined", task_id=task_id.decode(), reason=reason)


def waker(app: Celery) -> Waker:
    """The waker of an application in this process."""
    return _wakers.setdefault(app, Waker(app))


def wake_queue(app: Celery, queue: str) -> Queue:
    """The queue through which the woken tasks of `queue` come back."""
    name = f"{queue}{SUFFIX}"
    try:
        return app.amqp.queues[name]
    except KeyError:  # task_create_missing_queues=False
        return Queue(name, routing_key=name)


def _by(count: int, flat: list[Any]) -> Iterator[tuple[Any, ...]]:
    return zip(*[iter(flat)] * count, strict=True)
