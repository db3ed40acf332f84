"""Prometheus metrics of what heimdall does in this process; needs the extra ``[prometheus]``."""

from __future__ import annotations

from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter

from .signals import lock_lost, task_deduplicated, task_rate_limited, task_released


def install(registry: CollectorRegistry = REGISTRY) -> None:
    """Count heimdall's signals by task, from now on; call it once in a process, such as in ``worker_init``.

    Args:
        registry: Where the metrics are registered.
    """
    _count(task_deduplicated, "heimdall_deduplicated", "Duplicates that were recognised", registry)
    _count(task_rate_limited, "heimdall_parked", "Tasks that were parked", registry)
    _count(task_released, "heimdall_released", "Ends of tasks that held something", registry, by="outcome")
    _count(lock_lost, "heimdall_lock_lost", "Locks lost under a running body", registry)


def _count(signal: Any, name: str, text: str, registry: CollectorRegistry, *, by: str | None = None) -> None:
    counter = Counter(name, text, ["task", *([by] if by else [])], registry=registry)

    def count(sender: Any = None, **about: Any) -> None:
        counter.labels(sender.name, *([about[by]] if by else [])).inc()

    signal.connect(count, weak=False, dispatch_uid=(name, id(registry)))
