"""Prometheus metrics of heimdall; needs the extra ``[prometheus]``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily

from celery_toolkit_core.connection import DRIVER_ERRORS
from celery_toolkit_core.errors import ToolkitError

from .signals import lock_lost, task_deduplicated, task_dropped, task_rate_limited, task_released, task_woken
from .store import all_stores

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery import Celery


def install(registry: CollectorRegistry = REGISTRY, *, app: Celery | None = None) -> None:
    """Count heimdall's signals by task, from now on; call it once in a process, such as in ``worker_init``.

    Args:
        registry: Where the metrics are registered.
        app: Also tell, at each scrape, how many tasks of this application wait in Redis.
    """
    _count(task_deduplicated, "heimdall_deduplicated", "Duplicates that were recognised", registry)
    _count(task_rate_limited, "heimdall_parked", "Times that tasks were parked", registry)
    _count(task_woken, "heimdall_woken", "Parked tasks that went on here", registry)
    _count(task_dropped, "heimdall_dropped", "Tasks that a full limit ended", registry)
    _count(task_released, "heimdall_released", "Ends of tasks that held something", registry, by="outcome")
    _count(lock_lost, "heimdall_lock_lost", "Locks lost under a running body", registry)
    if app is not None:
        registry.register(_Waiting(app))


class _Waiting:
    def __init__(self, app: Celery) -> None:
        self._app = app

    def describe(self) -> Iterator[GaugeMetricFamily]:
        yield self._gauge()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        gauge = self._gauge()
        try:
            gauge.add_metric([], sum(store.client.hlen(store.parking[0]) for store in all_stores(self._app)))
        except (ToolkitError, *DRIVER_ERRORS):
            return  # no figure rather than a wrong one
        yield gauge

    def _gauge(self) -> GaugeMetricFamily:
        return GaugeMetricFamily("heimdall_waiting", "Tasks kept in Redis now", labels=[])


def _count(signal: Any, name: str, text: str, registry: CollectorRegistry, *, by: str | None = None) -> None:
    counter = Counter(name, text, ["task", *([by] if by else [])], registry=registry)

    def count(sender: Any = None, **about: Any) -> None:
        counter.labels(sender.name, *([about[by]] if by else [])).inc()

    signal.connect(count, weak=False, dispatch_uid=(name, id(registry)))
