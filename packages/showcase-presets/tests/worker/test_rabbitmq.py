"""The same presets on RabbitMQ: quorum queues, a topic exchange, pauses by Celery's native delayed delivery."""

from __future__ import annotations

import os
import signal

import pytest

from celery_showcase_presets import publisher_app
from celery_showcase_presets.dead_letters import dead_letters_of, replay
from celery_toolkit_testkit import eventually

pytestmark = pytest.mark.rabbitmq
PATIENCE = 90


@pytest.fixture
def app(celery_environment, rabbitmq_url, monkeypatch):
    monkeypatch.setenv("CELERY_BROKER_URL", rabbitmq_url)
    app = publisher_app()
    yield app
    app.close()


def send(app, name, *args):
    return app.send_task(name, args, queue=name.partition(".")[0])


def letters_when(app, number):
    return eventually(lambda: len(found := list(dead_letters_of(app))) == number and found, PATIENCE, interval=0.2)


def test_a_light_task_that_fails_eight_times_succeeds_at_last(app, celery_worker_process, event_log):
    celery_worker_process("light_worker")
    assert send(app, "light.stubborn", 8).get(timeout=PATIENCE) == 8
    assert [event["retries"] for event in event_log.events(what="attempt")] == list(range(9))


def test_a_heavy_task_is_tried_four_times_leaves_one_letter_and_is_replayed_with_its_own_id_once(
    app, celery_worker_process, event_log
):
    celery_worker_process("heavy_worker", name="big")
    result = send(app, "heavy.doomed", "no way")
    with pytest.raises(ConnectionError):
        result.get(timeout=PATIENCE)
    (letter,) = letters_when(app, 1)
    assert [event["retries"] for event in event_log.events(what="attempt")] == [0, 1, 2, 3]
    assert (letter.id, letter.task, letter.reason) == (result.id, "heavy.doomed", "failed")
    details = letter.details
    assert (details["queue"], details["worker"], details["retries"]) == ("heavy", "big@test", "3")
    assert (details["args"], details["exception"]) == ("('no way',)", "ConnectionError('no way')")
    assert "preset_tasks.py" in details["traceback"]
    assert replay(app, [letter.id]) == [letter.id]
    assert replay(app, [letter.id]) == []
    event_log.wait_for(8, PATIENCE, what="attempt")
    assert [event["retries"] for event in event_log.events(what="attempt")] == [0, 1, 2, 3] * 2
    (again,) = letters_when(app, 1)
    assert again.id == letter.id


def test_a_task_that_kills_its_process_three_times_leaves_a_letter_and_harms_no_other(
    app, celery_worker_process, event_log
):
    celery_worker_process("heavy_worker", concurrency=2)
    killer = send(app, "heavy.killer")
    others = [send(app, "heavy.render", 0.1) for _ in range(10)]
    assert [other.get(timeout=PATIENCE) for other in others] == [0.1] * 10
    (letter,) = letters_when(app, 1)
    assert (letter.id, letter.reason, letter.details["kills"]) == (killer.id, "process lost", "3")
    assert len(event_log.events(what="kill")) == 3


def test_what_a_task_rejects_is_brought_by_the_broker_itself(app, celery_worker_process, event_log):
    celery_worker_process("heavy_worker")
    rejected = send(app, "heavy.refuser", "not mine")
    (letter,) = letters_when(app, 1)
    assert (letter.id, letter.reason) == (rejected.id, "rejected")
    assert (letter.details["queue"], letter.details["args"]) == ("heavy", "('not mine',)")
    assert replay(app) == [rejected.id]
    event_log.wait_for(2, PATIENCE, what="refuse")
    letters_when(app, 1)


def test_a_heavy_task_runs_again_after_its_worker_was_killed(app, celery_worker_process, event_log):
    first = celery_worker_process("heavy_worker", concurrency=1)
    result = send(app, "heavy.render", 2)
    event_log.wait_for(1, PATIENCE, what="start")
    for pid in (first.pid, *first.child_pids()):
        os.kill(pid, signal.SIGKILL)
    celery_worker_process("heavy_worker", concurrency=1)
    assert result.get(timeout=PATIENCE) == 2
    assert len(event_log.events(what="end")) == 1
