"""Parked tasks between Redis and the workers, message by message, without a worker."""

from __future__ import annotations

import pytest
from celery import Celery

from celery_heimdall import Concurrency, HeimdallTask, RateLimit, set_limit
from celery_heimdall.calls import Call
from celery_heimdall.claims import Claim
from celery_heimdall.inspection import parked
from celery_heimdall.waking import Waker
from celery_toolkit_core.limits import Limiter
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
    assert Claim(task, Call(task, (None,)), None, "b", 0, new).start() == "stale"
    assert list(parked(task.heimdall_store)) == []


def test_of_several_limits_all_are_taken_or_none(app):
    limits = [RateLimit("5/m", name="roomy"), Concurrency(1, name="narrow"), RateLimit("5/m", name="also")]
    task = declare(app, limits=limits)

    def used():
        store = task.heimdall_store
        demands = Claim(task, Call(task, (None,)), None, "x", 0, "x/1").demands
        return [state.used for state in Limiter(store.client, store.space).peek(demands)]

    first, _ = enter(task, "a", "a/1")
    assert first.start() == "go"
    assert used() == [1, 1, 1]
    assert enter(task, "b", "b/1")[1][0] == "parked"
    assert used() == [1, 1, 1]
    first.finish("success", comes_back=False)
    assert used() == [1, 0, 1]


def test_a_place_that_is_given_back_in_one_lane_is_looked_for_in_another_within_a_second(app):
    """Two tasks that share one of their limits: neither's end wakes the other's lane."""
    app.conf.heimdall_lease = 60
    desk = Concurrency(1, name="desk")
    task = declare(app, limits=[desk])

    @app.task(base=HeimdallTask, name="other", shared=False, limits=[desk, RateLimit("100/s", name="also")])
    def other(value=None):
        return None

    first, _ = enter(task, "a", "a/1")
    assert first.start() == "go"
    verdict, wait_ms, _ = enter(other, "b", "b/1")[1]
    assert (verdict, wait_ms <= 1000) == ("parked", True)
    store, lane = task.heimdall_store, Claim(other, Call(other, (None,)), None, "b", 0, "b/1").limits_lane
    seconds, micros = store.client.time()
    assert store.client.zscore(store.parking[2], lane) <= seconds * 1000 + micros / 1000 + 1000
    first.finish("success", comes_back=False)
    assert eventually(lambda: wake(task))[0][0] == "b"


def test_a_woken_message_that_comes_again_after_its_body_began_is_an_ordinary_one(app):
    """Late acknowledgement: the broker's copy of the woken message is the only one when the worker dies."""
    app.conf.heimdall_lease = 60
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
    app.conf.heimdall_lease = 60
    task = declare(app, limits=[Concurrency(1)])
    first, _ = enter(task, "a", "a/1")
    assert first.start() == "go"
    for task_id in "bcd":
        assert enter(task, task_id, f"{task_id}/1")[1][0] == "parked"
    first.finish("success", comes_back=False)
    assert enter(task, "e", "e/1")[1][0] == "parked"
    assert [task_id for task_id, _, _ in wake(task)] == ["b"]


def test_one_keeps_watch_and_the_others_come_later(app):
    """With everybody looking at every place that comes free, a fleet would ask as often as it has workers."""
    app.conf.heimdall_sweep = 20.0
    task = declare(app, limits=[RateLimit("1/200ms")])
    assert enter(task, "a", "a/1")[0].start() == "go"
    for task_id in "bcd":
        enter(task, task_id, f"{task_id}/1")
    watcher, other = Waker(app), Waker(app)
    for waker in (watcher, other):
        waker._publish = lambda *message: None
    store = task.heimdall_store
    eventually(lambda: watcher.look(store) and watcher.woken)
    assert watcher.look(store) < 5 < other.look(store)
    # When it dies, what it watches is due all the same for whoever looks, and that one keeps watch from then on.
    eventually(lambda: other.look(store) and other.woken)
    assert other.look(store) < 5 < watcher.look(store)


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


def test_no_more_tasks_are_on_their_way_than_workers_take_up(app):
    """With a limit above what the workers can do, all would be late, woken anew with a new token, and late again."""
    app.conf.update(heimdall_wake_timeout=60, heimdall_lease=60)
    task = declare(app, limits=[RateLimit("1000/s")])
    lane = Claim(task, Call(task, (0,)), None, "x", 0, "x/1").limits_lane
    set_limit("task", "paused", app=app)
    for number in range(70):
        assert enter(task, f"t{number:02}", f"t{number:02}/1")[1][0] == "parked"
    set_limit("task", None, app=app)
    first = eventually(lambda: wake(task))
    assert [task_id for task_id, _, _ in first] == [f"t{number:02}" for number in range(50)]
    store = task.heimdall_store
    store.client.zadd(store.parking[2], {lane: 0})
    assert wake(task) == []
    for task_id, token, _ in first[:5]:
        assert enter(task, task_id, token, woken=True)[1][0] == "run"
    second = eventually(lambda: wake(task))
    assert [task_id for task_id, _, _ in second] == [f"t{number:02}" for number in range(50, 55)]
    # What is not taken up in time makes room too, and comes first.
    store.client.zadd(store.parking[3], {task_id: 0 for task_id, _, _ in (*first[5:], *second)})
    third = eventually(lambda: wake(task))
    assert third[0][0] == "t05"
