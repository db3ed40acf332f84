"""The presets with heimdall and ranch: unique heavy tasks, a light queue that is fair between clients."""

from __future__ import annotations

import pytest

from celery_showcase_presets.dead_letters import dead_letters_of, replay
from celery_toolkit_testkit import eventually

PATIENCE = 90

pytest.importorskip("celery_heimdall")
pytest.importorskip("celery_ranch")


@pytest.fixture
def combined(celery_app_module):
    return celery_app_module("combined")


def test_a_unique_heavy_task_keeps_its_key_over_killed_processes(combined, celery_worker_process, event_log):
    first = combined.report.delay(1, 2)
    assert combined.report.delay(1, 2).id == first.id
    celery_worker_process("combined", queues=["heavy"], concurrency=2)
    assert first.get(timeout=PATIENCE) == 1
    assert [event["retries"] for event in event_log.events(what="report")] == [0, 1, 2]
    assert len(dead_letters_of(combined.app)) == 0


def test_a_unique_heavy_task_that_died_frees_its_key_and_can_be_replayed(combined, celery_worker_process, event_log):
    dead = combined.report.delay(2, 3)
    celery_worker_process("combined", queues=["heavy"], concurrency=2)
    (letter,) = eventually(lambda: list(dead_letters_of(combined.app)), PATIENCE)
    assert (letter.id, letter.reason) == (dead.id, "process lost")
    assert eventually(lambda: combined.report.delay(2, 0).id != dead.id, PATIENCE)
    eventually(lambda: event_log.events(what="report")[3:], PATIENCE)
    assert replay(combined.app) == [dead.id]
    (again,) = eventually(lambda: list(dead_letters_of(combined.app)), PATIENCE)
    assert again.id == dead.id
    assert [event["retries"] for event in event_log.events(what="report")] == [0, 1, 2, 0, 0, 1, 2]


def test_a_light_queue_is_fair_between_clients_and_counts_killed_processes(combined, celery_worker_process, event_log):
    results = [combined.mail.delay("bulk", number) for number in range(20)]
    late = combined.mail.delay("late", 0)
    killer = combined.mail.delay("rough", 0, kills=1)
    celery_worker_process("combined", queues=["light"], concurrency=1)
    for result in [*results, late, killer]:
        result.get(timeout=PATIENCE)
    order = [event["client"] for event in event_log.events(what="mail")]
    assert "late" in order[:3]
    assert order.count("rough") == 2
    assert order.count("bulk") == 20
    assert len(dead_letters_of(combined.app)) == 0
