"""The main road, with real workers: a task sent for a client is an ordinary Celery task that waits for a fair turn."""

from __future__ import annotations

import pytest

from celery_toolkit_testkit import eventually


@pytest.fixture
def fair(celery_app_module):
    return celery_app_module("fair")


def test_the_result_of_lru_delay_is_the_tasks(fair, celery_worker_process):
    celery_worker_process("fair")
    results = [fair.add.lru_delay(f"client{number % 3}", number, 1) for number in range(20)]
    assert [result.get(timeout=60) for result in results] == list(range(1, 21))


def test_new_clients_come_first_behind_a_bulk_client(fair, celery_worker_process, event_log):
    """10 clients with one task each behind 2,000 bulk tasks: all within the first 20 claimed after submission."""
    for number in range(2000):
        fair.note.lru_delay("bulk", f"bulk{number}")
    for number in range(10):
        fair.note.lru_delay(f"new{number}", f"new{number}")
    celery_worker_process("fair", concurrency=1)
    event_log.wait_for(40, what="note")
    order = [each["text"] for each in event_log.events(what="note")]
    assert {f"new{number}" for number in range(10)} <= set(order[:20])
