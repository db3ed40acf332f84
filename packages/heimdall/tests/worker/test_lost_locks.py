"""Our Redis goes away, before a body starts or while it runs."""

from __future__ import annotations

import pytest

from celery_toolkit_testkit import eventually


@pytest.fixture
def proxy(tcp_proxy, monkeypatch):
    proxy = tcp_proxy()
    monkeypatch.setenv("RULED_REDIS", proxy.url)
    return proxy


def lose_the_lock(app, worker, event_log, proxy, seconds):
    result = app.late.delay("a", seconds=seconds)
    event_log.wait_for(1, what="begin")
    with proxy.refusing():
        proxy.cut()
        worker.wait_for_log("lock_lost")
    return result


def test_the_loss_is_told_and_the_result_kept(celery_app_module, celery_worker_process, event_log, proxy):
    app = celery_app_module("ruled")
    result = lose_the_lock(app, celery_worker_process("ruled"), event_log, proxy, 8.0)
    assert result.get(timeout=60) == "a"


def test_the_body_is_ended_where_that_is_asked_for(
    celery_app_module, celery_worker_process, event_log, proxy, monkeypatch
):
    monkeypatch.setenv("RULED_LOST", "abort")
    app = celery_app_module("ruled")
    result = lose_the_lock(app, celery_worker_process("ruled"), event_log, proxy, 120.0)
    with pytest.raises(Exception, match="terminated"):
        result.get(timeout=60)
    assert result.state == "REVOKED"
    assert event_log.events(what="end") == []


def test_a_pool_that_cannot_end_bodies_is_refused(celery_app_module, celery_worker_process, monkeypatch):
    monkeypatch.setenv("RULED_LOST", "abort")
    celery_app_module("ruled")
    worker = celery_worker_process("ruled", pool="threads", wait=False)
    worker.wait_for_log("the pool thread cannot end a body; use prefork")


def test_a_body_that_is_about_to_start_waits_for_redis(celery_app_module, celery_worker_process, event_log, proxy):
    """It was accepted: to fail now would be to lose it."""
    app = celery_app_module("ruled")
    worker = celery_worker_process("ruled", concurrency=1)
    first, second = app.roomy.delay("a", seconds=2.0), app.roomy.delay("b")
    event_log.wait_for(1, what="begin")
    worker.wait_for_log(f"roomy[{second.id}] received")
    with proxy.refusing():
        proxy.cut()
        worker.wait_for_log("start_waits_for_redis")
    assert [first.get(timeout=60), second.get(timeout=60)] == ["a", "b"]


def test_without_redis_tasks_run_unprotected_where_that_is_asked_for(
    celery_app_module, celery_worker_process, event_log, monkeypatch
):
    monkeypatch.setenv("RULED_REDIS", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("RULED_ERROR", "run")
    app = celery_app_module("ruled")
    celery_worker_process("ruled")
    results = [task.delay("a") for task in (app.late, app.late, app.slowly, app.slowly)]
    assert [result.get(timeout=60) for result in results] == ["a"] * 4


def test_a_call_that_keeps_the_interpreter_loses_the_lock_to_a_higher_fence(
    celery_app_module, celery_worker_process, event_log
):
    """The limit of renewal by a thread, in pools whose bodies run in the worker's own process."""
    app = celery_app_module("ruled")
    worker = celery_worker_process("ruled", pool="solo")
    first = app.deaf.delay("a", 8)
    event_log.wait_for(1, what="begin")
    second = eventually(lambda: not (again := app.deaf.delay("a", 0)).deduplicated and again)
    assert not event_log.events(what="end")
    celery_worker_process("ruled", name="other")
    assert second.get(timeout=60) == "a"
    worker.wait_for_log("lock_lost")
    assert first.get(timeout=60) == "a"
    fences = [event["fence"] for event in event_log.events(what="begin")]
    assert fences[0] < fences[1]
