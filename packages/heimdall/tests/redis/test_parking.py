"""Parked tasks between Redis and the workers, message by message, without a worker."""

from __future__ import annotations

import pytest
from celery import Celery

from celery_heimdall import Concurrency, HeimdallTask, RateLimit
from celery_heimdall.calls import Call
from celery_heimdall.claims import Claim
from celery_heimdall.inspection import parked
from celery_heimdall.waking import Waker
from celery_toolkit_testkit import eventually


@pytest.fixture
def app(redis_url):
    app = Celery("parking", broker="memory://", set_as_current=False)
    app.conf.update(heimdall_redis_url=redis_url, heimdall_wake_timeout=0.5, heimdall_lease=0.5)
    yield app
    app.close()


def declare(app, **options):
    @app.task(base=HeimdallTask, name="task", shared=False, **options)
    def task(value=None):
        return None

    app.finalize()
    return app.tasks["task"]


def enter(task, task_id, token, *, woken=False, value=None):
    claim = Claim(task, Call(task, (value,)), None, task_id, 0, token)
    message = b"" if woken else task_id.encode()
    return claim, claim.enter(woken=woken, queue="q", message=message, later=False, join=False, holder="")


def wake(task):
    """What the waker would publish: task id and token."""
    published = []
    waker = Waker(task.app)
    waker._publish = lambda store, task_id, token, queue, data: published.append((task_id.decode(), token, data))
    waker.look(task.heimdall_store)
    return published


def test_a_woken_task_is_woken_anew_when_nobody_takes_it_up_and_the_older_message_is_refused(app):
    task = declare(app, limits=[RateLimit("1/500ms")])
    first, _ = enter(task, "a", "a/1")
    assert first.start() == "go"
    assert enter(task, "b", "b/1")[1][0] == "parked"
    assert enter(task, "b", "b/2")[1] == ["drop", "kept"]
    ((_, old, data),) = eventually(lambda: wake(task))
    assert data == b"b"
    ((_, new, _),) = eventually(lambda: wake(task))
    assert new != old
    assert enter(task, "b", old, woken=True)[1] == ["drop", "stale"]
    claim, answer = enter(task, "b", new, woken=True)
    assert answer[0] == "run"
    assert claim.start() == "go"
    assert claim.start() == "stale"
    assert list(parked(task.heimdall_store)) == []


def test_a_woken_message_that_comes_again_after_its_body_began_is_an_ordinary_one(app):
    """Late acknowledgement: the broker's copy of the woken message is the only one when the worker dies."""
    task = declare(app, limits=[Concurrency(1)])
    first, _ = enter(task, "a", "a/1")
    assert first.start() == "go"
    enter(task, "b", "b/1")
    assert first.finish("success", comes_back=False)
    ((_, token, _),) = eventually(lambda: wake(task))
    second, _ = enter(task, "b", token, woken=True)
    assert second.start() == "go"
    assert enter(task, "b", token, woken=True)[1] == ["message"]
    second.finish("success", comes_back=False)
    assert enter(task, "b", token, woken=True)[1] == ["drop", "stale"]


def test_tasks_are_woken_in_the_order_of_their_coming_and_none_overtakes(app):
    task = declare(app, limits=[Concurrency(1)])
    first, _ = enter(task, "a", "a/1")
    assert first.start() == "go"
    for task_id in "bcd":
        assert enter(task, task_id, f"{task_id}/1")[1][0] == "parked"
    first.finish("success", comes_back=False)
    assert enter(task, "e", "e/1")[1][0] == "parked"
    assert [task_id for task_id, _, _ in wake(task)] == ["b"]


def test_what_a_dead_worker_had_in_hand_goes_back_to_the_head_of_its_lane(app):
    task = declare(app, limits=[Concurrency(1)])
    enter(task, "a", "a/1")  # and the worker dies before the body starts
    assert enter(task, "b", "b/1")[1][0] == "parked"
    ((task_id, token, data),) = eventually(lambda: wake(task))
    assert (task_id, data) == ("a", b"a")
    assert enter(task, "a", token, woken=True)[1][0] == "run"


def test_a_body_that_comes_too_late_is_parked_again_rather_than_started(app):
    task = declare(app, limits=[RateLimit("1/100ms")])
    late, _ = enter(task, "a", "a/1")
    assert enter(task, "b", "b/1")[1][0] == "parked"
    ((_, token, _),) = eventually(lambda: wake(task))
    quick, _ = enter(task, "b", token, woken=True)
    assert quick.start() == "go"
    assert late.start() == "parked"
    late.finish("ignored", comes_back=False)
    assert [(row["id"], row["task"]) for row in parked(task.heimdall_store)] == [("a", "task")]
    assert eventually(lambda: wake(task))[0][0] == "a"


def test_bytes_that_nobody_can_read_are_put_aside(app, redis_client):
    task = declare(app, limits=[RateLimit("1/100ms")])
    first, _ = enter(task, "a", "a/1")
    assert first.start() == "go"
    enter(task, "b", "b/1")
    waker = Waker(app)
    store = task.heimdall_store
    eventually(lambda: waker.look(store) and redis_client.hgetall(store.space.key("quarantine")) == {b"b": b"b"})
    assert list(parked(store)) == []
