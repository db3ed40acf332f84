from __future__ import annotations

import pytest

from celery_heimdall import task_deduplicated, task_released

prometheus_client = pytest.importorskip("prometheus_client")


class Sender:
    name = "report"


def test_signals_are_counted_by_task():
    from celery_heimdall import metrics

    registry = prometheus_client.CollectorRegistry()
    metrics.install(registry)
    task = Sender()
    task_deduplicated.send(sender=task, task_id="a", holder="b")
    task_released.send(sender=task, task_id="a", outcome="success")
    assert registry.get_sample_value("heimdall_deduplicated_total", {"task": "report"}) == 1
    labels = {"task": "report", "outcome": "success"}
    assert registry.get_sample_value("heimdall_released_total", labels) == 1
