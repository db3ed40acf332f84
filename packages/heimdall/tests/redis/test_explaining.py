"""Why a task is not running: one test for each reason."""

from __future__ import annotations

import pytest
from celery import Celery

from celery_heimdall import Concurrency, HeimdallTask, RateLimit, Unique, set_limit
from celery_heimdall.calls import Call
from celery_heimdall.claims import Claim
from celery_heimdall.explaining import explain
from celery_heimdall.inspection import parked
from celery_heimdall.unique import lock_of, revoke
from celery_heimdall.waking import Waker
from celery_toolkit_core.limits import Demand, Limiter
from celery_toolkit_core.limits import RateLimit as CoreRateLimit
from celery_toolkit_testkit import eventually


@pytest.fixture
def app(redis_url):
    app = Celery("explaining", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.update(heimdall_redis_url=redis_url)
    yield app
    app.close()


def declare(app, **options):
    @app.task(base=HeimdallTask, name="task", shared=False, **options)
    def task(value=None):
        return None

    app.finalize()
    return app.tasks["task"]


def enter(task, task_id, *, token="1", value=None, holder=""):
    claim = Claim(task, Call(task, (value,)), None, task_id, 0, f"{task_id}/{token}")
    claim.enter(woken=False, queue="q", message=b"m", later=False, join=bool(holder), holder=holder)
    return claim


def why(task, task_id):
    found = explain(task.app, [task.heimdall_store], task_id)
    assert found["id"] == task_id
    return found["reason"], found["text"]


def test_a_limit_is_full(app):
    task = declare(app, limits=[RateLimit("1/m", name="api", by="value")])
    assert enter(task, "a", value="one").start() == "go"
    enter(task, "b", value="one")
    reason, text = why(task, "b")
    assert reason == "limit"
    assert "for the limit api['one'], as number 1 in line; api['one'] is full, 1 of 1 in 60 s" in text


def test_a_limit_is_paused(app):
    task = declare(app, limits=[RateLimit("1/m", name="api", paused=True)])
    enter(task, "a")
    assert why(task, "a")[0] == "paused"
    assert "api is paused" in why(task, "a")[1]
    set_limit("api", "5/m", app=app)
    assert "paused" not in why(task, "a")[1]


def test_a_limit_is_stopped_by_the_other_side(app):
    task = declare(app, limits=[RateLimit("5/m", name="api")])
    store = task.heimdall_store
    limit = CoreRateLimit("5/m", name="h-rate:api")
    Limiter(store.client, store.space).penalise([Demand(limit)], retry_after=60)
    enter(task, "a")
    reason, text = why(task, "a")
    assert (reason, "api is stopped for" in text) == ("penalised", True)


def test_a_body_of_its_key_runs(app):
    task = declare(app, unique=Unique(key="one"))
    enter(task, "a")
    enter(task, "a", token="2")
    reason, text = why(task, "a")
    assert reason == "key"
    assert "the key one, under which a is running" in text


def test_it_shares_the_result_of_another(app):
    task = declare(app, unique=Unique(key="one", on_conflict="join"))
    enter(task, "a")
    enter(task, "b", holder="a")
    reason, text = why(task, "b")
    assert (reason, "the end of task a" in text) == ("joined", True)


def test_it_was_woken(app):
    task = declare(app, limits=[RateLimit("1/100ms")])
    assert enter(task, "a").start() == "go"
    enter(task, "b")
    waker = Waker(app)
    waker._publish = lambda *message: None
    eventually(lambda: waker.look(task.heimdall_store) and waker.woken)
    reason, text = why(task, "b")
    assert (reason, "q.wake" in text) == ("woken", True)


def test_a_worker_has_it_in_hand(app):
    task = declare(app, limits=[Concurrency(1)])
    enter(task, "a")
    assert why(task, "a")[0] == "entered"
    assert list(parked(task.heimdall_store)) == []


@pytest.mark.parametrize("state", ["reserved", "queued", "running"])
def test_it_holds_its_key(app, state):
    task = declare(app, unique=Unique(key="one"))
    lock = lock_of(task, "one")
    lock.reserve("a", 0, 60)
    if state == "queued":
        task.heimdall_store.run("confirm", [lock.key], ["a", 0])
    if state == "running":
        enter(task, "a")
    reason, text = why(task, "a")
    assert reason == f"holds-{state}"
    assert "the key one" in text


def test_it_lost_its_key_to_a_later_one(app):
    task = declare(app, unique=Unique(key="one"))
    enter(task, "a")
    lock = lock_of(task, "one")
    task.heimdall_store.client.hset(lock.key, "running_until_ms", 0)  # its worker dies
    assert lock.reserve("b", 0, 60).holder is None
    reason, text = why(task, "a")
    assert (reason, "its worker died" in text) == ("lost-its-key", True)


def test_its_worker_died_and_nobody_has_its_key(app):
    """On a Redis broker it comes again after an hour; until then it looked like a task that nobody had heard of."""
    task = declare(app, unique=Unique(key="one"))
    enter(task, "a")
    task.heimdall_store.client.hset(lock_of(task, "one").key, "running_until_ms", 0)
    reason, text = why(task, "a")
    assert reason == "forgotten"
    assert text.startswith("the worker that had it died, and its key one is free; a task that is acknowledged late")
    lock_of(task, "two").reserve("b", 0, 60)
    task.heimdall_store.client.hset(lock_of(task, "two").key, "reserved_until_ms", 1)
    assert why(task, "b")[1] == "it was never published: its producer died, and its key two is free"
    app.backend.store_result("a", None, "SUCCESS")
    assert why(task, "a") == ("ended", "it has ended: SUCCESS")


def test_nobody_could_read_its_message(app):
    task = declare(app, limits=[RateLimit("1/100ms")])
    assert enter(task, "a").start() == "go"
    enter(task, "b")
    waker = Waker(app)
    eventually(lambda: waker.look(task.heimdall_store) and why(task, "b")[0] == "quarantined")


def test_what_is_known_of_it_is_poisoned(app):
    task = declare(app, limits=[RateLimit("5/m")])
    store = task.heimdall_store
    for task_id, poison in (("a", b"\xff{"), ("b", b"[]")):
        store.client.hset(store.parking[0], task_id, poison)
        assert why(task, task_id)[0] == "quarantined"
    assert {row["state"] for row in parked(store)} == {"unreadable"}


def test_it_has_ended_as_a_duplicate(app):
    task = declare(app, unique=Unique(key="one"))
    revoke(task, "b", "a")
    reason, text = why(task, "b")
    assert (reason, "duplicate of task a" in text) == ("ended", True)


def test_heimdall_knows_nothing_of_it(app):
    task = declare(app, unique=Unique(key="one"))
    reason, text = why(task, "x")
    assert (reason, "PENDING" in text) == ("unknown", True)


def test_without_a_result_backend_it_says_what_it_knows(app):
    app.conf.result_backend = None
    task = declare(app, unique=Unique(key="one"))
    assert why(task, "x")[0] == "unknown"
