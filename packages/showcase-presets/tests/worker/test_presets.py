from __future__ import annotations

import os
import signal
import time

import pytest
from celery import chain
from celery.exceptions import NotRegistered

from celery_showcase_presets import publisher_app
from celery_toolkit_testkit import TcpProxy, eventually

VISIBILITY = 1  # seconds
PATIENCE = 90


@pytest.fixture
def app(celery_environment):
    app = publisher_app()
    yield app
    app.close()


def send(app, name, *args, **options):
    """By name, as from another program: the queue is then the caller's to say."""
    return app.send_task(name, args, queue=options.get("queue", name.partition(".")[0]))


def test_a_heavy_task_is_tried_four_times_then_fails(app, celery_worker_process, event_log):
    celery_worker_process("heavy_worker")
    result = send(app, "heavy.doomed", "away")
    with pytest.raises(ConnectionError, match="away"):
        result.get(timeout=PATIENCE)
    assert [event["retries"] for event in event_log.events(what="attempt")] == [0, 1, 2, 3]
    assert result.state == "FAILURE"


def test_a_light_task_that_fails_eight_times_succeeds_at_last(app, celery_worker_process, event_log):
    celery_worker_process("light_worker")
    assert send(app, "light.stubborn", 8).get(timeout=PATIENCE) == 8
    assert [event["retries"] for event in event_log.events(what="attempt")] == list(range(9))


def test_a_chain_runs_its_heavy_step_on_the_heavy_worker_and_its_light_step_on_the_light_one(
    app, celery_worker_process
):
    celery_worker_process("heavy_worker", name="big")
    celery_worker_process("light_worker", name="small")
    result = chain(app.signature("heavy.render", (0,), queue="heavy"), app.signature("light.announce"))()
    assert result.get(timeout=PATIENCE) == [0, "small@test"]


def test_a_cut_connection_to_the_results_fails_no_task(app, celery_worker_process):
    with TcpProxy(app.conf.result_backend) as proxy:
        celery_worker_process("light_worker", concurrency=1, env={"CELERY_RESULT_BACKEND": proxy.url})
        for number in range(2):
            # Celery reads what is noted of a task before it notes that it starts, and before it notes its end.
            proxy.lose_reply("GET", nth=number + 1)
            assert send(app, "light.announce", number).get(timeout=PATIENCE)[0] == number
            assert not proxy.fault_pending


def test_a_light_worker_can_send_a_heavy_task(app, celery_worker_process):
    celery_worker_process("heavy_worker")
    celery_worker_process("light_worker")
    sent = send(app, "light.forward", 0).get(timeout=PATIENCE)
    assert app.AsyncResult(sent).get(timeout=PATIENCE) == 0


def test_a_worker_refuses_a_task_of_the_other_pool_and_lives(app, celery_worker_process):
    worker = celery_worker_process("heavy_worker")
    stray = send(app, "light.announce", 1, queue="heavy")
    assert send(app, "heavy.render", 0).get(timeout=PATIENCE) == 0
    assert isinstance(eventually(lambda: stray.result, PATIENCE), NotRegistered)
    assert worker.is_running


def test_a_heavy_task_runs_again_after_its_worker_was_killed(app, celery_worker_process, event_log):
    first = celery_worker_process("heavy_worker", concurrency=1)
    result = send(app, "heavy.render", 2)
    (start,) = event_log.wait_for(1, PATIENCE, what="start")
    for pid in (first.pid, *first.child_pids()):
        os.kill(pid, signal.SIGKILL)
    # kombu looks when it starts, and then only about every 100 s: the message must have timed out by then.
    eventually(lambda: time.monotonic() - start["at"] > 2 * VISIBILITY, PATIENCE)
    celery_worker_process("heavy_worker", concurrency=1, env={"VISIBILITY": str(VISIBILITY)})
    assert result.get(timeout=PATIENCE) == 2
    assert len(event_log.events(what="end")) == 1
