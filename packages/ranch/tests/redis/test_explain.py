"""Why a task is not running: one test for each reason."""

from __future__ import annotations

import json

import pytest

from celery_ranch import Clients, lru_task
from celery_ranch.application import ranch_of
from celery_ranch.entries import Report
from celery_toolkit_testkit import eventually

# Celery stores results with a command that redis-py calls old.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")


@pytest.fixture
def task(app):
    @lru_task(app, shared=False, name="explain.task")
    def task(text=None):
        pass

    return task


@pytest.fixture
def why(ranch):
    """What `explain` says: (reason, sentence) in JSON, and the same sentence for people."""

    def why(result):
        (found,) = json.loads(ranch("explain", "--json", result.id))
        assert found["why"] in ranch("explain", result.id)
        return found["reason"], found["why"]

    return why


@pytest.fixture
def served(app):
    """Says what a worker says once a second: that it consumes the queues."""

    def served():
        backlog = ranch_of(app).backlog
        backlog.tend(max_attempts=3, busy_queues=list(backlog.queues()))

    return served


def end(app, claimed, outcome):
    ranch_of(app).backlog.report([Report("end", claimed.entry, claimed.token, outcome)])


def test_its_turn_has_not_come(task, why, served):
    task.lru_delay("a")
    task.lru_delay("b")
    result = task.lru_delay("b")
    served()
    assert why(result) == ("turn", "its turn has not come: 1 tasks of its client and 1 clients are before it")


def test_paused(task, app, why, served):
    result = task.lru_delay("a")
    Clients(app).pause("a")
    served()
    assert why(result) == ("paused", "the client is paused; 0 tasks of its client are before it")


def test_capped(task, app, why, served, claim):
    Clients(app).set_max_in_flight("a", 1)
    task.lru_delay("a")
    result = task.lru_delay("a")
    served()
    assert claim(app)
    assert why(result)[0] == "capped"


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("limited", "a rate or concurrency limit holds it back"),
        ("locked", "another task has its key"),
        ("", "another control has taken it"),
    ],
)
def test_taken_by_another_control(task, app, why, claim, word, sentence):
    result = task.lru_delay("a")
    end(app, claim(app), f"handed_back {word}".rstrip())
    reason, said = why(result)
    assert reason == (word or "taken")
    assert said.startswith(sentence)


def test_in_flight(task, app, why, claim):
    result = task.lru_delay("a")
    assert claim(app)
    reason, said = why(result)
    assert reason == "in flight"
    assert said.startswith("a worker has it, attempt 1; the lease runs until")


def test_in_flight_with_a_worker_that_died(task, app, why, claim):
    """Where no worker is left, nobody puts it back, and no worker `has` it either."""
    result = task.lru_delay("a")
    assert claim(app, lease=0.001)
    said = eventually(lambda: (said := why(result)[1]).startswith("the worker that had it, attempt 1, died") and said)
    assert said.endswith("any worker that lives puts it back")


def test_no_consumer(task, app, why, served):
    result = task.lru_delay("a")
    assert why(result)[0] == "no consumer"
    assert "none was ever seen" in why(result)[1]
    served()
    backlog = ranch_of(app).backlog
    backlog.client.hset(backlog.key("served"), next(iter(backlog.queues())), 1000)
    assert "the last one was seen at 1970-01-01T00:00:01Z" in why(result)[1]


def test_scheduled(task, why):
    assert why(task.lru_apply_async("a", countdown=100))[0] == "scheduled"


def test_dead_and_unreadable(task, app, why, claim):
    dead, unreadable = task.lru_delay("a"), task.lru_delay("a")
    backlog = ranch_of(app).backlog
    assert claim(app, lease=0.001)
    eventually(lambda: backlog.tend(max_attempts=1).dead)
    end(app, claim(app), "quarantined")
    assert why(dead)[0] == "dead"
    assert why(unreadable)[0] == "quarantined"


@pytest.mark.not_on("cluster", reason="there is no result backend there")
def test_ended(task, app, why, claim):
    result = task.lru_delay("a")
    end(app, claim(app), "done")
    app.backend.store_result(result.id, 1, "SUCCESS")
    assert why(result) == ("ended", "it has ended: SUCCESS")


def test_unknown(task, app, why):
    assert why(app.AsyncResult("nobody"))[0] == "unknown"
