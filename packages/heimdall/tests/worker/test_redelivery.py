"""What a dead worker had in hand, when its key has gone to a later call."""

from __future__ import annotations

import time

import pytest
from kombu.exceptions import OperationalError

from celery_toolkit_testkit import eventually, frozen


def test_accepted_work_that_comes_back_runs_beside_or_instead_of_nobody(
    celery_app_module, celery_worker_process, event_log
):
    """Turned away as the duplicate of the later call, it would be lost: its caller was told that it will run."""
    app = celery_app_module("ruled")
    first = app.late.delay("a", seconds=4.0)
    worker = celery_worker_process("ruled")
    event_log.wait_for(1, what="begin")
    worker.kill()
    second = eventually(lambda: not (again := app.late.delay("a", seconds=2.0)).deduplicated and again)
    celery_worker_process("ruled", concurrency=4)
    assert [result.get(timeout=60) for result in (second, first)] == ["a", "a"]
    after = [(event["what"], event["id"]) for event in event_log.events()][1:]
    one_by_one = [[("begin", each.id), ("end", each.id)] for each in (first, second)]
    assert after in (one_by_one[0] + one_by_one[1], one_by_one[1] + one_by_one[0])


def test_a_worker_killed_between_the_body_and_the_release_costs_a_repetition_with_a_higher_fence(
    celery_app_module, celery_worker_process, event_log
):
    app = celery_app_module("strained")
    first = celery_worker_process("strained", env={"VISIBILITY": "1"})
    app.last_act.delay("a")
    event_log.wait_for(1, what="end")
    eventually(lambda: not first.is_running)
    first.destroy()
    celery_worker_process("strained", env={"VISIBILITY": "1"})
    begun = event_log.wait_for(2, what="begin")
    assert begun[0]["id"] == begun[1]["id"]
    assert begun[0]["fence"] < begun[1]["fence"]


@pytest.mark.parametrize("told", ["nothing", "an error"])
def test_a_publish_whose_answer_is_lost_is_one_run(
    told, celery_app_module, celery_worker_process, event_log, tcp_proxy, redis_client
):
    """The message is in the queue; the client sends it again, or the caller does after an error."""
    proxy = tcp_proxy()
    app = celery_app_module("strained")
    app.app.conf.update(broker_write_url=proxy.url, task_publish_retry=told == "nothing")
    app.plain.delay("the connection is there").forget()
    proxy.lose_reply("LPUSH")
    if told == "nothing":
        accepted = app.unique.delay("a", seconds=0.5)
        assert redis_client.llen("celery") == 3
    else:
        with proxy.refusing(), pytest.raises(OperationalError):
            app.unique.delay("a", seconds=0.5)
        assert redis_client.llen("celery") == 2
        accepted = app.unique.delay("a", seconds=0.5)
    assert not accepted.deduplicated
    worker = celery_worker_process("strained", concurrency=4)
    accepted.get(timeout=60)
    worker.wait_for_log("copy_dropped" if told == "nothing" else "task_deduplicated")
    assert len(event_log.events(what="begin")) == 1


def test_a_retry_that_cannot_be_sent_is_no_lost_task(celery_app_module, celery_worker_process, event_log, tcp_proxy):
    """Celery rejects the task's message then, and with it goes what was acknowledged late."""
    proxy = tcp_proxy()
    app = celery_app_module("strained")
    celery_worker_process("strained", env={"BROKER_WRITE_URL": proxy.url})
    with proxy.refusing():
        result = app.stumbling.delay("a")
        event_log.wait_for(3, what="try")
    assert result.get(timeout=60) == f"a by {result.id}"
    tries = [event["retries"] for event in event_log.events(what="try")]
    assert tries == [0] * (len(tries) - 1) + [1]
    eventually(lambda: not app.stumbling.delay("a").deduplicated)


def test_a_worker_that_stood_still_starts_no_body_that_another_has_run(
    celery_app_module, celery_worker_process, event_log, redis_client
):
    """It had received the task, and its only process was busy; meanwhile the message went to another worker."""
    app = celery_app_module("ruled")
    first = celery_worker_process("ruled", concurrency=1)
    busy = app.deaf.delay("busy", 6)
    event_log.wait_for(1, what="begin", id=busy.id)
    task = app.late.delay("a")
    first.wait_for_log(f"late[{task.id}] received")
    with frozen(first.pid, *first.child_pids()):
        # kombu looks for messages whose visibility timeout has passed at a worker's start.
        eventually(lambda: redis_client.zrangebyscore("unacked_index", 0, time.time() - 2))
        celery_worker_process("ruled")
        assert task.get(timeout=60) == "a"
    assert busy.get(timeout=60) == "busy"
    first.wait_for_log("copy_dropped task=late")
    assert len(event_log.events(what="begin", id=task.id)) == 1
    assert task.state == "SUCCESS"
    eventually(lambda: not app.late.delay("a").deduplicated)
