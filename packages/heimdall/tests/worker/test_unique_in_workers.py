"""Unique tasks in real workers: one at a time, and the key is free again whatever way the task ends."""

from __future__ import annotations

import pytest
from celery_toolkit_testkit import eventually


def test_a_second_call_gets_the_first_ones_handle_until_it_has_ended(celery_app_module, celery_worker_process):
    app = celery_app_module("guarded")
    first = app.unique.delay("a", seconds=1.0)
    celery_worker_process("guarded")
    second = app.unique.delay("a", seconds=1.0)
    assert (second.id, second.deduplicated) == (first.id, True)
    first.get(timeout=60)
    third = eventually(lambda: not (again := app.unique.delay("a", seconds=1.0)).deduplicated and again)
    assert third.id != first.id
    third.get(timeout=60)


def test_all_of_twenty_retried_tasks_complete(celery_app_module, celery_worker_process):
    """celery-heimdall 1.0 and celery-singleton lose 20 of 20: the retry meets its own lock."""
    app = celery_app_module("guarded")
    celery_worker_process("guarded")
    results = [app.retrying.delay(number, times=2) for number in range(20)]
    assert [result.get(timeout=60) for result in results] == [2] * 20


@pytest.mark.parametrize("how", ["success", "failure", "ignore", "reject", "child killed"])
def test_the_key_is_free_after(how, celery_app_module, celery_worker_process, event_log):
    """Peers keep the lock until its timeout when the child is killed."""
    app = celery_app_module("guarded")
    celery_worker_process("guarded")
    app.ending.delay("a", how)
    event_log.wait_for(1, what="end")
    eventually(lambda: not app.ending.delay("a", how).deduplicated)
