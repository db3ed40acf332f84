"""Prometheus metrics of the backlog; needs the extra ``[prometheus]``."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from prometheus_client import REGISTRY, CollectorRegistry, Histogram, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from celery_toolkit_core.errors import RedisError
from celery_toolkit_core.log import event

from .application import Address, ranch_of
from .audits import audit
from .clients import Clients
from .signals import task_claimed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeAlias

    from celery import Celery
    from prometheus_client import Metric

    from .application import Ranch

    Server: TypeAlias = Any

logger = logging.getLogger(__name__)

#: Upper bounds in seconds of the buckets of waiting time.
_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)

_STATES = ("scheduled", "waiting", "in_flight", "dead", "quarantined")
_ENDS = ("done", "expired", "revoked", "abandoned", "purged", "handed_back")


def install(app: Celery, registry: CollectorRegistry = REGISTRY, *, clients: bool = False) -> None:
    """Keep the metrics in a registry from now on; once in a process.

    Args:
        app: The Celery application.
        registry: Where.
        clients: Also `ranch_client_backlog` and `ranch_client_in_flight`, one series for each client.
    """
    registry.register(BacklogCollector(app, clients=clients))
    waits = Histogram(
        "ranch_wait_seconds",
        "How long the tasks that this worker claimed had waited for their turn",
        ["queue"],
        registry=registry,
        buckets=_BUCKETS,
    )

    def observe(queue: str = "", waited: float = 0.0, **_: Any) -> None:
        waits.labels(queue).observe(waited)

    task_claimed.connect(observe, weak=False, dispatch_uid=f"ranch_wait_seconds {id(registry)}")


def install_in_worker(ranch: Ranch) -> Server | None:
    """What a worker does with ``ranch_metrics_enabled``: the default registry, and a port if one is set."""
    settings = ranch.settings
    install(ranch.app, clients=settings.metrics_clients)
    if settings.metrics_port is None:
        return None
    try:
        server, _ = start_http_server(settings.metrics_port)
    except OSError as error:
        # Another worker of this machine has it; the backlog's metrics are the same there.
        event(logger, logging.WARNING, "metrics_port_taken", port=settings.metrics_port, error=str(error))
        return None
    return server


class BacklogCollector(Collector):
    """Reads the backlog whenever somebody asks for the metrics; the same numbers in every process of the application.

    Args:
        app: The Celery application.
        clients: Also one series for each client.
    """

    def __init__(self, app: Celery, *, clients: bool = False) -> None:
        self._app = app
        self._clients = clients

    def describe(self) -> list[Metric]:
        """Nothing: to be registered must not need Redis."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The metrics of this moment."""
        try:
            found = list(self._read())
        except RedisError as error:
            event(logger, logging.WARNING, "metrics_unavailable", error=str(error))
            found = []
        yield GaugeMetricFamily("ranch_up", "Whether the backlog's Redis answered", value=bool(found))
        yield from found

    def _read(self) -> Iterator[Metric]:
        seen = audit(self._app)
        backlog = GaugeMetricFamily("ranch_backlog", "Tasks that wait for their turn in a queue", labels=["queue"])
        for queue in ranch_of(self._app).backlog.queues().values():
            backlog.add_metric([Address.from_bytes(queue.address).name(self._app)], queue.waiting)
        yield backlog
        states = GaugeMetricFamily("ranch_tasks", "Tasks that have not ended, by where they are", labels=["state"])
        for name in _STATES:
            states.add_metric([name], seen[name])
        yield states
        ends = CounterMetricFamily("ranch_tasks_ended", "Tasks that have ended, by how", labels=["how"])
        for name in _ENDS:
            ends.add_metric([name], seen[name])
        yield ends
        yield CounterMetricFamily("ranch_tasks_submitted", "Tasks that have entered the backlog", seen["submitted"])
        yield GaugeMetricFamily("ranch_tasks_missing", "Tasks that are nowhere: 0", seen["missing"])
        yield GaugeMetricFamily("ranch_clients", "Clients that have tasks waiting", seen["clients"])
        yield CounterMetricFamily("ranch_weight_failures", "Weight functions that failed", seen["weight_failures"])
        if self._clients:
            yield from self._by_client()

    def _by_client(self) -> Iterator[Metric]:
        waiting = GaugeMetricFamily("ranch_client_backlog", "Tasks of a client that wait", labels=["client"])
        running = GaugeMetricFamily("ranch_client_in_flight", "Tasks of a client in flight", labels=["client"])
        for client in Clients(self._app).all():
            waiting.add_metric([client["lru_key"]], client["waiting"])
            running.add_metric([client["lru_key"]], client["in_flight"])
        yield waiting
        yield running
