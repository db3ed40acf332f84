"""``celery ranch``, run as Celery runs it."""

from __future__ import annotations

import json

import pytest

from celery_ranch import ClientDraining, Clients, audit, lru_task
from celery_ranch.application import ranch_of
from celery_toolkit_testkit import eventually

# Celery stores results with a command that redis-py calls old; as an error it would keep a purge from telling.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")


@pytest.fixture
def task(app):
    @lru_task(app, shared=False, name="cli.task")
    def task(text=None):
        pass

    return task


def test_status_clients_and_show(ranch, task):
    task.lru_delay("a", tags={"tier": "gold"})
    task.lru_delay("b")
    seen = json.loads(ranch("status", "--json"))
    assert (seen["submitted"], seen["waiting"], seen["missing"]) == (2, 2, 0)
    assert [row["lru_key"] for row in json.loads(ranch("clients", "--json"))] == ["a", "b"]
    assert [row["lru_key"] for row in json.loads(ranch("clients", "--tag", "tier=gold", "--json"))] == ["a"]
    assert json.loads(ranch("show", "a", "--json"))["waiting"] == 1
    assert "no client 'x' is known" in ranch("show", "x", code=1)


def test_an_operators_decisions(ranch, task):
    result = task.lru_delay("a")
    ranch("set-weight", "a", "0.5")
    ranch("set-cap", "a", "3")
    ranch("pause", "a")
    seen = Clients(task.app).show("a")
    assert (seen["weight"], seen["max_in_flight"], seen["paused"]) == (0.5, 3, True)
    assert "the client is paused" in ranch("explain", result.id)
    ranch("resume", "a")
    ranch("set-cap", "a", "none")
    assert "1 tasks thrown away" in ranch("purge", "--yes", "a")
    assert "above 0" in ranch("set-weight", "a", "0", code=1)


def test_a_decision_is_told_and_a_client_that_nobody_knows_is_noted(ranch, task):
    task.lru_delay("alice")
    told = {
        ("set-weight", "alice", "0.5"): "alice: weight 0.5\n",
        ("set-share", "alice", "4"): "alice: share 4\n",
        ("set-cap", "alice", "3"): "alice: at most 3 in flight\n",
        ("set-backlog", "alice", "7"): "alice: at most 7 waiting\n",
        ("pause", "alice"): "alice: paused\n",
        ("drain", "alice"): "alice: drained\n1 tasks left\n",
        ("resume", "alice"): "alice: resumed\n",
    }
    assert {call: ranch(*call) for call in told} == told
    assert "note: no client 'alcie' was known until now (did you mean 'alice'?)" in ranch("pause", "alcie")


def test_a_simulation_without_a_trace_says_that_it_is_made_up(ranch):
    assert "made up: a bulk import and four people" in ranch("simulate")


def test_shares_limits_and_drains(ranch, task):
    task.lru_delay("a")
    ranch("set-share", "a", "4")
    ranch("set-backlog", "a", "7")
    assert "1 tasks left" in ranch("drain", "a")
    assert "1 tasks left" in ranch("drain", "a", "--wait", "0.1", code=1)
    seen = Clients(task.app).show("a")
    assert (seen["weight"], seen["max_backlog"], seen["draining"]) == (0.25, 7, True)
    with pytest.raises(ClientDraining):
        task.lru_delay("a")
    ranch("resume", "a")
    ranch("set-backlog", "a", "none")
    assert Clients(task.app).show("a")["max_backlog"] is None
    assert task.lru_delay("a").id
    assert "neither a whole number nor 'none'" in ranch("set-cap", "a", "many", code=2)


@pytest.mark.not_on("cluster", reason="there is no result backend there")
def test_a_purged_task_has_ended_and_explain_says_how(ranch, task):
    result = task.lru_delay("a")
    assert "1 tasks thrown away" in ranch("purge", "--yes", "a")
    assert "it has ended: REVOKED" in ranch("explain", result.id)


def test_dead_tasks_are_listed_retried_and_dropped(ranch, app, task, claim):
    backlog = ranch_of(task.app).backlog
    for _ in range(2):
        task.lru_delay("a")
        assert claim(app, lease=0.001)
        eventually(lambda: backlog.tend(max_attempts=1).dead)
    rows = json.loads(ranch("dead", "list", "--json"))
    assert [(row["lru_key"], row["why"]) for row in rows] == [("a", "attempts")] * 2
    assert "1 of 1 sent again" in ranch("dead", "replay", rows[0]["entry"])
    assert "1 of 2 thrown away" in ranch("dead", "drop", rows[0]["entry"], rows[1]["entry"])
    assert "no dead entry is called nobody" in ranch("dead", "replay", "nobody", code=1)
    seen = audit(task.app)
    assert (seen["waiting"], seen["purged"], seen["dead"], seen["missing"]) == (1, 1, 0, 0)


def test_without_an_app_it_says_so(ranch):
    assert "no app given, use -A" in ranch("status", app=(), code=1)
