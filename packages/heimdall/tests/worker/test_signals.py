"""Each signal, with what it says, in the worker's main process."""

from __future__ import annotations

import pytest

from celery_heimdall.inspection import locks
from celery_heimdall.task import release_lock
from celery_toolkit_testkit import eventually


@pytest.fixture
def told(event_log):
    """What a signal said of a task."""

    def of(result, signal):
        found = event_log.events(signal=signal, task_id=result.id)
        return found and found[0]

    return of


def test_a_parked_task_is_told_of_as_it_waits_goes_on_and_ends(
    celery_app_module, celery_worker_process, event_log, told
):
    app = celery_app_module("signalled")
    celery_worker_process("signalled")
    app.slowly.delay("a")
    event_log.wait_for(1, what="begin")
    waiting = app.slowly.delay("b")
    parked = eventually(lambda: told(waiting, "task_rate_limited"))
    assert parked["task"] == "slowly"
    assert 0 < parked["wait"] <= 3
    assert not told(waiting, "task_woken")
    waiting.get(timeout=60)
    assert told(waiting, "task_woken")
    assert eventually(lambda: told(waiting, "task_released"))["outcome"] == "success"


def test_a_dropped_task_is_told_of_with_its_limit(celery_app_module, celery_worker_process, told):
    app = celery_app_module("signalled")
    celery_worker_process("signalled")
    app.dropped.delay("a").get(timeout=60)
    second = app.dropped.delay("b")
    assert eventually(lambda: told(second, "task_dropped"))["limit"] == "rare"
    assert eventually(lambda: told(second, "task_released"))["outcome"] == "ignored"


def test_a_duplicate_message_is_told_of_with_its_holder(celery_app_module, celery_worker_process, event_log, told):
    app = celery_app_module("signalled")
    celery_worker_process("signalled")
    holder = app.late.delay("a", seconds=2.0)
    event_log.wait_for(1, what="begin")
    duplicate = app.app.send_task("late", ("a",))
    assert eventually(lambda: told(duplicate, "task_deduplicated"))["holder"] == holder.id
    assert not told(duplicate, "task_released")


def test_a_lost_lock_is_told_of_with_its_key(celery_app_module, celery_worker_process, event_log, told):
    app = celery_app_module("signalled")
    celery_worker_process("signalled")
    running = app.late.delay("a", seconds=4.0)
    event_log.wait_for(1, what="begin")
    (lock,) = locks(app.late.heimdall_store)
    assert release_lock(app.late, lock["key"])
    assert eventually(lambda: told(running, "lock_lost"))["key"] == lock["key"]
    assert running.get(timeout=60) == "a"
