"""What Prometheus reads: queues, workers, ends of tasks, dead letters; needs the extra ``[prometheus]``."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from kombu.exceptions import KombuError
from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from redis.exceptions import RedisError

from celery_toolkit_core.errors import ToolkitError
from celery_toolkit_core.log import event

from .dead_letters import dead_letters_of
from .depths import Depths
from .errors import NoManagement, PortTaken
from .management import unacknowledged

if TYPE_CHECKING:
    from celery import Celery
    from prometheus_client.metrics_core import Metric

logger = logging.getLogger(__name__)

#: Seconds without a word after which a worker counts as gone; they say something every 2 s.
SILENCE = 60.0
#: Where the exporter listens unless told otherwise.
PORT = 9808

_ENDS = ("succeeded", "failed", "retried", "revoked", "rejected")
_AWAY = (ToolkitError, KombuError, RedisError, OSError)


class TaskEvents:
    """Counts what workers tell: who is online, how tasks end, how long they take.

    Args:
        app: The application.
        registry: Where the counters are registered.
    """

    def __init__(self, app: Celery, registry: CollectorRegistry) -> None:
        self._app = app
        self._state = app.events.State(max_workers_in_memory=5000, max_tasks_in_memory=50_000)
        self._seen: dict[str, float] = {}
        self._receiver: Any = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="task-events", daemon=True)
        self._tasks = Counter(
            "celery_tasks", "Ends of tasks, by what the workers tell", ["task", "state"], registry=registry
        )
        self._seconds = Histogram(
            "celery_task_seconds",
            "How long bodies took that succeeded",
            ["task"],
            buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 1800),
            registry=registry,
        )

    def online(self) -> int:
        """How many workers have said something of late and not said goodbye."""
        now = time.monotonic()
        return sum(now - at < SILENCE for at in list(self._seen.values()))

    def start(self) -> None:
        """Begin to listen, in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """End, within about a second."""
        self._ended.set()
        if self._receiver is not None:
            self._receiver.should_stop = True
        # A thread that waits for a broker that is away is not waited for: it ends with the process.
        self._thread.join(2.0)

    def _listen(self) -> None:
        pause = 0.0
        while not self._ended.wait(pause):
            try:
                with self._app.connection_for_read() as connection:
                    self._receiver = self._app.events.Receiver(connection, handlers={"*": self._on_event})
                    # Asks all workers to say that they are there.
                    self._receiver.capture(limit=None, timeout=None, wakeup=True)
            except Exception as error:  # noqa: BLE001  # whatever the line to the broker can do, listening goes on
                event(logger, logging.WARNING, "events_interrupted", error=type(error).__name__)
            pause = 1.0

    def _on_event(self, told: dict[str, Any]) -> None:
        kind = told["type"]
        if (worker := told.get("hostname")) and not kind.startswith("task-sent"):
            self._seen[worker] = time.monotonic()
            if kind == "worker-offline":
                del self._seen[worker]
        # Only the first event of a task bears its name: the state puts them together.
        self._state.event(told)
        end = kind.removeprefix("task-")
        if end not in _ENDS:
            return
        task = self._state.tasks.get(told["uuid"])
        name = getattr(task, "name", None) or "unknown"
        self._tasks.labels(name, end).inc()
        if end == "succeeded":
            self._seconds.labels(name).observe(told.get("runtime") or 0.0)


class Figures(Collector):
    """What is looked up at the moment of the scrape.

    Args:
        app: The application.
        online: How many workers there are.
    """

    def __init__(self, app: Celery, online: Callable[[], int]) -> None:
        self._app = app
        self._online = online
        self._depths = Depths(app)
        self._turn = threading.Lock()

    def describe(self) -> Iterable[Metric]:
        """Nothing beforehand: to register must not ask the broker."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The figures; those of a server that is away are left out."""
        with self._turn:
            yield _gauge("celery_workers_online", "Workers that said something of late", self._online())
            yield from self._queues()
            yield from self._letters()
            yield from self._ranch()

    def _queues(self) -> Iterator[Metric]:
        try:
            depths = self._depths.read()
        except _AWAY as error:
            event(logger, logging.WARNING, "broker_away", error=type(error).__name__)
            depths = None
        yield _gauge("celery_broker_up", "Whether the broker answered", int(depths is not None))
        waiting = GaugeMetricFamily("celery_queue_messages", "Messages that no worker has fetched", labels=["queue"])
        fetched = GaugeMetricFamily(
            "celery_queue_unacknowledged", "Messages that a worker has in hand", labels=["queue"]
        )
        oldest = GaugeMetricFamily("celery_queue_oldest_seconds", "Age of the oldest waiting message", labels=["queue"])
        told = self._told_by_management() if any(depth.unacknowledged is None for depth in depths or ()) else {}
        for depth in depths or ():
            waiting.add_metric([depth.queue], depth.waiting)
            if (in_hand := told.get(depth.queue, depth.unacknowledged)) is not None:
                fetched.add_metric([depth.queue], in_hand)
            if depth.oldest is not None:
                oldest.add_metric([depth.queue], depth.oldest)
        yield from (waiting, fetched, oldest)

    def _told_by_management(self) -> dict[str, int]:
        # Over AMQP, RabbitMQ tells what waits and nothing else.
        try:
            return unacknowledged(self._app)
        except NoManagement:
            return {}

    def _letters(self) -> Iterator[Metric]:
        try:
            yield _gauge(
                "celery_dead_letters", "Messages that will not be tried again", len(dead_letters_of(self._app))
            )
        except _AWAY as error:
            event(logger, logging.WARNING, "dead_letters_away", error=type(error).__name__)

    def _ranch(self) -> Iterator[Metric]:
        if find_spec("celery_ranch") is None:
            return
        from celery_ranch import audit

        try:
            places = audit(self._app)
        except _AWAY:
            return
        family = GaugeMetricFamily("celery_ranch_tasks", "Tasks in ranch's backlog", labels=["state"])
        for state in ("waiting", "scheduled", "in_flight", "dead"):
            family.add_metric([state], places[state])
        yield family


class Exporter:
    """Serves the metrics of one application over HTTP; use it with ``with``.

    Args:
        app: The application.
        host: The address to listen on.
        port: The port; 0 chooses a free one.
    """

    def __init__(self, app: Celery, *, host: str = "127.0.0.1", port: int = PORT) -> None:
        self.registry = CollectorRegistry()
        self._events = TaskEvents(app, self.registry)
        self.registry.register(Figures(app, self._events.online))
        self._address = host, port
        self._server: Any = None

    @property
    def port(self) -> int:
        """The port on which it listens."""
        return int(self._server.server_port)

    @property
    def online(self) -> int:
        """How many workers it hears."""
        return self._events.online()

    def start(self) -> None:
        """Listen for workers and for whoever scrapes.

        Raises:
            PortTaken: Something else listens there.
        """
        host, port = self._address
        try:
            self._server, _ = start_http_server(port, addr=host, registry=self.registry)
        except OSError as error:
            raise PortTaken(
                f"cannot listen on {host}:{port} ({error.strerror}): choose another --port", port=port
            ) from None
        self._events.start()

    def stop(self) -> None:
        """End both."""
        self._events.stop()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def __enter__(self) -> Exporter:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)
