"""A RabbitMQ broker, and Redis only for our state and the results."""

from __future__ import annotations


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
