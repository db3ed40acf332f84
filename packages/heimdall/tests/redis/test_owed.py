"""Accepted work whose key went to a later call: it is never turned away as that one's duplicate."""

from __future__ import annotations

import pytest
from celery import Celery

from celery_heimdall import HeimdallTask, Unique
from celery_heimdall.calls import Call
from celery_heimdall.claims import Claim
from celery_heimdall.unique import lock_of
from celery_heimdall.waking import Waker
from celery_toolkit_testkit import eventually


@pytest.fixture
def make_task(redis_url):
    app = Celery("owed", broker="memory://", set_as_current=False)
    app.conf.update(heimdall_redis_url=redis_url)

    def make(**options):
        @app.task(base=HeimdallTask, name="task", shared=False, unique=Unique(key="one", **options))
        def task():
            return None

        app.finalize()
        return app.tasks["task"]

    yield make
    app.close()


def accept(task, task_id, ttl=60.0):
    lock = lock_of(task, "one")
    answer = lock.reserve(task_id, 0, ttl)
    if answer.holder is None:
        task.heimdall_store.run("confirm", [lock.key], [task_id, 0])
    return answer.holder


def enter(task, task_id, token="1", *, woken=False):
    claim = Claim(task, Call(task), "one", task_id, 0, token if woken else f"{task_id}/{token}")
    answer = claim.enter(woken=woken, queue="q", message=b"" if woken else b"m", later=False, join=False, holder="")
    return claim, answer[0]


def die(task):
    """The end of a lease, without the wait for it."""
    task.heimdall_store.client.hset(lock_of(task, "one").key, "running_until_ms", 0)


def accepted_by_then(task, task_id):
    eventually(lambda: accept(task, task_id) is None)


def test_a_task_whose_timeout_passed_in_the_queue_runs_before_the_later_one(make_task):
    task = make_task()
    accept(task, "a", ttl=0.05)
    accepted_by_then(task, "b")
    first, verdict = enter(task, "a")
    assert verdict == "run"
    assert accept(task, "c") == "b"
    assert enter(task, "b")[1] == "parked"
    first.finish("success", comes_back=False)
    assert enter(task, "a", "2")[1] == "drop"
    assert accept(task, "c") == "b"


def test_a_task_whose_worker_died_waits_for_the_later_one_and_then_runs(make_task):
    task = make_task()
    accept(task, "a")
    assert enter(task, "a")[1] == "run"
    die(task)
    assert accept(task, "b") is None
    second, verdict = enter(task, "b")
    assert verdict == "run"
    assert enter(task, "a", "2")[1] == "parked"
    second.finish("success", comes_back=False)
    # A third call is accepted meanwhile; it must not push the first one back again.
    assert accept(task, "c") is None
    published = []
    waker = Waker(task.app)
    waker._publish = lambda store, task_id, token, queue, data: published.append((task_id.decode(), token))
    eventually(lambda: waker.look(task.heimdall_store) and published)
    ((task_id, token),) = published
    assert task_id == "a"
    assert enter(task, "a", token, woken=True)[1] == "run"
    assert enter(task, "c")[1] == "parked"


def test_a_begun_task_is_not_turned_away_where_the_next_may_be_queued_at_its_start(make_task):
    task = make_task(until="start")
    accept(task, "a")
    assert enter(task, "a")[1] == "run"
    task.heimdall_store.run("begin", [lock_of(task, "one").key], ["a"])
    assert accept(task, "b") is None
    assert enter(task, "a", "2")[1] == "run"
    assert accept(task, "c") == "b"


def test_a_publish_that_failed_or_was_never_confirmed_owes_nothing(make_task):
    """The caller had an error, or died: what comes all the same is the duplicate of the call that was made then."""
    task = make_task()
    lock = lock_of(task, "one")
    lock.reserve("a", 0, 60.0)
    lock.cancel("a")
    assert accept(task, "b") is None
    assert enter(task, "a")[1] == "duplicate"


def test_only_so_many_are_remembered(make_task, redis_client):
    task = make_task()
    for number in range(50):
        eventually(lambda: accept(task, f"t{number:02}", ttl=0.001) is None)  # noqa: B023  # called before the next turn
    eventually(lambda: accept(task, "last") is None)
    owed = redis_client.hget(lock_of(task, "one").key, "owed").decode().split()
    assert len(owed) == 32
    assert owed[-1] == "t49"


def test_what_has_ended_is_remembered_for_ten_minutes(make_task, redis_client):
    task = make_task(ttl=1)
    claim, _ = enter(task, "a")
    claim.finish("success", comes_back=False)
    assert redis_client.pttl(claim.lock.key) > 590_000


@pytest.mark.parametrize("outcome", ["success", "failure", "revoked", "expired", "terminated", "lost"])
def test_a_key_kept_until_its_expiry_is_freed_by_what_did_not_run_to_its_end(outcome, make_task):
    task = make_task(until="expiry")
    accept(task, "a")
    claim, _ = enter(task, "a")
    claim.finish(outcome, comes_back=False)
    assert accept(task, "b") == ("a" if outcome in ("success", "failure") else None)
