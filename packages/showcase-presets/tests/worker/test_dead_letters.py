from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from celery_showcase_presets import publisher_app
from celery_showcase_presets.dead_letters import dead_letters_of, replay
from celery_toolkit_testkit import eventually

PATIENCE = 90


@pytest.fixture
def app(celery_environment):
    app = publisher_app()
    yield app
    app.close()


def send(app, name, *args, **kwargs):
    return app.send_task(name, args, kwargs, queue="heavy")


def fail(app, *names):
    """Send tasks that fail for good, and wait for their letters."""
    for name, *args in names:
        send(app, name, *args)
    return eventually(lambda: len(found := list(dead_letters_of(app))) == len(names) and found, PATIENCE)


def test_a_task_that_failed_four_times_leaves_one_letter_with_all_that_is_known(app, celery_worker_process, event_log):
    celery_worker_process("heavy_worker", name="big")
    result = send(app, "heavy.doomed", "no way")
    with pytest.raises(ConnectionError):
        result.get(timeout=PATIENCE)
    (letter,) = eventually(lambda: list(dead_letters_of(app)), PATIENCE)
    assert len(event_log.events(what="attempt")) == 4
    assert (letter.id, letter.task, letter.reason) == (result.id, "heavy.doomed", "failed")
    assert letter.details["args"] == "('no way',)"
    assert letter.details["retries"] == "3"
    assert letter.details["queue"] == "heavy"
    assert letter.details["worker"] == "big@test"
    assert letter.details["exception"] == "ConnectionError('no way')"
    assert "preset_tasks.py" in letter.details["traceback"]


def test_a_replayed_letter_runs_with_its_own_id_from_its_first_attempt_once(app, celery_worker_process, event_log):
    celery_worker_process("heavy_worker")
    (letter,) = fail(app, ("heavy.doomed", "again"))
    assert replay(app, [letter.id]) == [letter.id]
    assert replay(app, [letter.id]) == []
    event_log.wait_for(8, PATIENCE, what="attempt")
    assert [event["retries"] for event in event_log.events(what="attempt")] == [0, 1, 2, 3] * 2
    (again,) = eventually(lambda: list(dead_letters_of(app)), PATIENCE)
    assert again.id == letter.id


def test_success_and_retries_leave_no_letter(app, celery_worker_process):
    celery_worker_process("heavy_worker")
    assert send(app, "heavy.render", 0).get(timeout=PATIENCE) == 0
    assert len(dead_letters_of(app)) == 0


def test_a_task_that_kills_its_process_three_times_or_runs_too_long_leaves_a_letter_and_harms_no_other(
    app, celery_worker_process, event_log
):
    celery_worker_process("heavy_worker", concurrency=2)
    letters = fail(app, ("heavy.killer",), ("heavy.endless",))
    assert {letter.task: letter.reason for letter in letters} == {
        "heavy.killer": "process lost",
        "heavy.endless": "time limit",
    }
    assert send(app, "heavy.render", 0).get(timeout=PATIENCE) == 0
    assert len(event_log.events(what="kill")) == 3


def test_letters_are_listed_shown_replayed_and_purged_from_the_command_line(app, celery_worker_process, event_log):
    celery_worker_process("heavy_worker")
    letters = fail(app, ("heavy.doomed", "one"), ("heavy.doomed", "two"), ("heavy.killer",))

    def dead(*arguments, code=0):
        done = subprocess.run(
            [sys.executable, "-m", "celery", "-A", "heavy_worker", "showcase", "dead", *arguments],
            cwd=Path(__file__).parent / "apps",
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr

    assert {row["id"] for row in json.loads(dead("list", "--json"))} == {letter.id for letter in letters}
    assert len(json.loads(dead("list", "--json", "--task", "heavy.doomed"))) == 2
    one = next(letter for letter in letters if letter.details["args"] == "('one',)")
    shown = dead("show", one.id)
    assert "ConnectionError('one')" in shown
    assert "Traceback" in shown
    assert "no dead letter" in dead("show", "nobody", code=1)
    assert "--all" in dead("purge", code=2)
    assert dead("purge", "--task", "heavy.killer") == "1 removed\n"
    assert dead("replay", "--task", "heavy.doomed") == "2 sent\n"
    event_log.wait_for(16, PATIENCE, what="attempt")
    eventually(lambda: len(dead_letters_of(app)) == 2, PATIENCE)
    assert dead("purge", "--all") == "2 removed\n"
    assert dead("list") == "none\n"
