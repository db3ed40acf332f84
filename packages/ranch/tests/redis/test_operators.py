"""What an operator may tell a client from code, and what a call then does: limits, drains, shares."""

from __future__ import annotations

from threading import Thread

import pytest
from celery._state import _task_stack
from celery.exceptions import TaskRevokedError

from celery_ranch import BacklogFull, ClientDraining, Clients, audit, lru_task
from celery_ranch.application import ranch_of
from celery_ranch.entries import Report
from celery_toolkit_core.errors import InvalidParameter
from celery_toolkit_testkit import eventually

# Celery stores results with a command that redis-py calls old.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")

to_a_broker = pytest.mark.not_on("cluster", reason="kombu knows no cluster")


@pytest.fixture
def make(app):
    def make(**options):
        @lru_task(app, shared=False, name=f"operators.task{len(app.tasks)}", **options)
        def task(text=None):
            pass

        return task

    return make


def end(app, claimed):
    ranch_of(app).backlog.report([Report("end", claimed.entry, claimed.token, "done")])


def test_a_share_is_a_weight_the_other_way_round(app, make):
    clients = Clients(app)
    clients.set_share("a", 4)
    assert clients.show("a")["weight"] == 0.25
    with pytest.raises(InvalidParameter, match="share=0"):
        clients.set_share("a", 0)


def test_a_full_backlog_blocks_the_caller_until_there_is_room(app, make, claim):
    task = make(max_backlog=1, on_full="block")
    task.lru_delay("a", "first")
    results = []
    caller = Thread(target=lambda: results.append(task.lru_delay("a", "second")))
    caller.start()
    caller.join(0.5)
    assert caller.is_alive()
    end(app, claim(app))
    caller.join(60)
    assert len(results) == 1
    assert audit(app)["waiting"] == 1


def test_who_blocks_for_too_long_gets_the_error(app, make):
    app.conf.ranch_block_timeout = 0.05
    task = make(max_backlog=1, on_full="block")
    task.lru_delay("a")
    with pytest.raises(BacklogFull):
        task.lru_delay("a")


@pytest.mark.not_on("cluster", reason="there is no result backend there")
def test_a_dropped_task_has_a_result_that_says_so(app, make):
    task = make(max_backlog=1, on_full="drop")
    task.lru_delay("a")
    result = task.lru_delay("a")
    assert result.state == "REVOKED"
    with pytest.raises(TaskRevokedError, match="as many as its limit allows"):
        result.get(timeout=30)
    assert (audit(app)["submitted"], audit(app)["missing"]) == (1, 0)


def test_an_impossible_word_for_a_full_backlog_is_refused(make):
    with pytest.raises(InvalidParameter, match="did you mean 'drop'"):
        make(max_backlog=1, on_full="dropp").lru_delay("a")


def test_a_retry_is_never_refused(app, make):
    task = make(max_backlog=1)
    task.lru_delay("a")
    Clients(app).drain("a")
    task.apply_async(lru_key="a", retries=1)
    assert audit(app)["waiting"] == 2


def test_a_drained_client_finishes_what_it_has_and_takes_nothing_new(app, make, claim):
    task, clients = make(), Clients(app)
    task.lru_delay("a")
    assert clients.drain("a") == 1
    with pytest.raises(ClientDraining, match="client 'a' is being drained"):
        task.lru_delay("a")
    task.lru_delay("b")
    end(app, claim(app))
    assert clients.drain("a", wait=30) == 0
    clients.resume("a")
    task.lru_delay("a")
    assert not clients.show("a")["draining"]


@pytest.mark.not_on("cluster", reason="there is no result backend there")
def test_purged_tasks_are_revoked_so_that_nobody_waits_for_them(app, make):
    task = make()
    results = [task.lru_delay("a") for _ in range(3)]
    task.lru_delay("b")
    assert Clients(app).purge("a") == 3
    assert {result.state for result in results} == {"REVOKED"}
    seen = audit(app)
    assert (seen["purged"], seen["waiting"], seen["missing"]) == (3, 1, 0)


def test_what_another_control_hands_back_stands_where_it_stood_when_it_returns(app, make, claim):
    """A parked task has waited: woken, it does not wait once more behind all that its client sent meanwhile."""
    from celery_ranch.producer import Call, enqueue
    from celery_toolkit_core.celery.messages import StoredMessage

    task, ranch = make(), ranch_of(app)
    first = task.lru_delay("a", "first")
    task.lru_delay("a", "second")
    claimed = claim(app)
    stored = StoredMessage.from_bytes(claimed.message)
    ranch.backlog.report([Report("end", claimed.entry, claimed.token, "handed_back limited")])
    task.lru_delay("a", "third")
    woken = stored.with_headers(woken="yes")
    enqueue(ranch, woken, Call("a", admission="back"), "redis")
    again = claim(app)
    assert StoredMessage.from_bytes(again.message).task_id == first.id
    assert audit(app)["missing"] == 0
    assert ranch.backlog.run("away", [first.id]) == []


def test_tags_of_a_client_that_is_forgotten_are_forgotten(app, redis_client):
    clients, backlog = Clients(app), ranch_of(app).backlog
    clients.tag("a", {"tier": "gold"})
    eventually(lambda: backlog.tend(max_attempts=3, client_ttl=0.001) and clients.show("a") is None)
    assert backlog.client.zcard(backlog.key("tagged")) == 0


@pytest.mark.parametrize(("inherits", "submitted"), [(True, 1), pytest.param(False, 0, marks=to_a_broker)])
def test_what_a_body_sends_belongs_to_its_client_unless_that_is_turned_off(app, make, inherits, submitted):
    app.conf.ranch_inherit_key = inherits
    task = make()
    _task_stack.push(task)
    task.push_request(headers={"ranch_key": "a"})
    try:
        task.delay()
    finally:
        task.pop_request()
        _task_stack.pop()
    assert audit(app)["submitted"] == submitted
