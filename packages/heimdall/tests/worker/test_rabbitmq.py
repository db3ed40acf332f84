"""A RabbitMQ broker, and Redis only for our state and the results."""

from __future__ import annotations

import pytest
from celery import chain, chord
from celery.exceptions import TaskRevokedError

from celery_heimdall import HeimdallError
from celery_toolkit_testkit import TcpProxy, eventually


def test_unique_and_limited_tasks_work_over_rabbitmq(
    celery_app_module, celery_worker_process, event_log, rabbitmq_url, monkeypatch
):
    monkeypatch.setenv("CELERY_BROKER_URL", rabbitmq_url)
    app = celery_app_module("guarded")
    first = app.unique.delay("a", seconds=1.0)
    assert app.unique.delay("a", seconds=1.0).id == first.id
    limited = [app.two_in_two.delay(number) for number in range(4)]
    retried = app.unique_limited.delay(7, times=1)
    celery_worker_process("guarded")
    first.get(timeout=60)
    for result in limited:
        result.get(timeout=60)
    assert retried.get(timeout=60) == 7
    moments = sorted(event["at"] for event in event_log.events(what="begin", task="two_in_two"))
    assert moments[2] - moments[0] > 1.9


def test_what_rabbitmq_delivers_again_after_a_kill_runs_when_the_lease_has_ended(
    celery_app_module, celery_worker_process, event_log, rabbitmq_url, monkeypatch
):
    """RabbitMQ redelivers at once, while the dead worker's lease still lives."""
    monkeypatch.setenv("CELERY_BROKER_URL", rabbitmq_url)
    app = celery_app_module("guarded")
    workers = [celery_worker_process("guarded", wait=False) for _ in range(2)]
    for worker in workers:
        worker.wait_ready()
    first = app.unique_late.delay("a", seconds=3.0)
    begun = event_log.wait_for(1, what="begin")[0]
    next(worker for worker in workers if begun["pid"] in worker.child_pids()).kill()
    first.get(timeout=60)
    assert [event["what"] for event in event_log.events()] == ["begin", "begin", "end"]
    assert event_log.events(what="begin")[1]["fence"] > begun["fence"]


def test_what_rabbitmq_delivers_again_after_a_broken_connection_does_not_run_beside_itself(
    celery_app_module, celery_worker_process, event_log, rabbitmq_url, monkeypatch
):
    """The body goes on, and what it has not acknowledged comes at once, to either worker."""
    with TcpProxy(rabbitmq_url) as proxy:
        monkeypatch.setenv("CELERY_BROKER_URL", proxy.url)
        app = celery_app_module("guarded")
        workers = [celery_worker_process("guarded", wait=False) for _ in range(2)]
        for worker in workers:
            worker.wait_ready()
        first = app.unique_late.delay("a", seconds=8.0)
        event_log.wait_for(1, what="begin")
        proxy.cut()
        eventually(lambda: any("task_parked" in worker.log() for worker in workers))
        assert first.get(timeout=60)
        eventually(lambda: any("copy_dropped" in worker.log() for worker in workers))
        assert [event["what"] for event in event_log.events()] == ["begin", "end"]


def test_duplicates_in_a_chord_are_joined_over_rabbitmq(
    celery_app_module, celery_worker_process, event_log, rabbitmq_url, monkeypatch
):
    monkeypatch.setenv("CELERY_BROKER_URL", rabbitmq_url)
    app = celery_app_module("guarded")
    celery_worker_process("guarded", concurrency=1)
    holder = app.unique.delay("a", seconds=1.0)
    in_chord = chord([app.unique.s("a"), app.unique.s("a"), app.plain.s("x")], app.total.s()).apply_async()
    assert in_chord.get(timeout=60) == 3
    assert [event["id"] for event in event_log.events(what="begin")] == [holder.id]


def test_without_a_redis_for_results_duplicates_end_clearly(
    celery_app_module, celery_worker_process, event_log, rabbitmq_url, redis_url, monkeypatch
):
    """What comes back as a message reaches its caller only: a joined task cannot read it, and must not pass None on."""
    monkeypatch.setenv("CELERY_BROKER_URL", rabbitmq_url)
    monkeypatch.setenv("CELERY_RESULT_BACKEND", "rpc://")
    monkeypatch.setenv("GUARDED_REDIS", redis_url)
    app = celery_app_module("guarded")
    celery_worker_process("guarded", concurrency=1)
    holder = app.unique.delay("a", seconds=1.0)
    sent = app.app.send_task("unique", ("a",))
    in_chain = chain(app.unique.si("a"), app.plain.s()).apply_async()
    with pytest.raises(TaskRevokedError, match=holder.id):
        sent.get(timeout=60)
    with pytest.raises(HeimdallError, match="rpc://"):
        in_chain.parent.get(timeout=60)
    assert holder.get(timeout=60).startswith("a by ")
    assert [event["id"] for event in event_log.events(what="begin")] == [holder.id]


def test_without_any_results_a_chain_with_a_duplicate_goes_on(
    celery_app_module, celery_worker_process, event_log, rabbitmq_url, redis_url, monkeypatch
):
    monkeypatch.setenv("CELERY_BROKER_URL", rabbitmq_url)
    monkeypatch.setenv("CELERY_RESULT_BACKEND", "disabled://")
    monkeypatch.setenv("GUARDED_REDIS", redis_url)
    app = celery_app_module("strained")
    celery_worker_process("strained", concurrency=1)
    app.unique.delay("a", seconds=1.0)
    event_log.wait_for(1, what="begin")
    chain(app.unique.si("a"), app.heard.si("the tail")).apply_async()
    assert event_log.wait_for(1, what="heard")[0]["id"] == "the tail"
    assert len(event_log.events(what="begin")) == 1
