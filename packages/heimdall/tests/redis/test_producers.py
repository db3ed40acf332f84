"""Celery's producer, taken while the answer about a key is on its way."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import pytest
from celery import Celery
from kombu import pools
from kombu.exceptions import LimitExceeded, SerializerNotInstalled

from celery_heimdall import AlreadyQueuedError, HeimdallTask, Unique
from celery_heimdall.inspection import locks
from celery_toolkit_testkit import eventually


@pytest.fixture
def make_task(redis_url):
    apps = []

    def make(on_conflict="return"):
        app = Celery("producers", broker="memory://", set_as_current=False)
        app.conf.update(heimdall_redis_url=redis_url, task_ignore_result=True, broker_pool_limit=1)

        @app.task(base=HeimdallTask, shared=False, name="task", unique=Unique(on_conflict=on_conflict))
        def task(value):
            """Has a key."""

        app.finalize()
        apps.append(app)
        for value in (-2, -1):  # the first questions go another way
            task.delay(value)
        return app.tasks["task"]

    yield make
    for app in apps:
        app.close()


def is_at_hand(app) -> bool:
    """Whether the only producer of the pool is there."""
    try:
        app.producer_pool.acquire(block=False).release()
    except LimitExceeded:
        return False
    return True


def published(task, value, **options):
    """The producer with which a call of the task is published."""
    seen = []
    send = task.app.amqp.send_task_message

    def watched(producer, *args, **kwargs):
        seen.append(producer)
        return send(producer, *args, **kwargs)

    task.app.amqp.send_task_message = watched
    try:
        task.apply_async((value,), **options)
    finally:
        task.app.amqp.send_task_message = send
    return seen


@pytest.mark.not_on("cluster", "sentinel", reason="there the client waits, not we")
def test_it_is_taken_before_celery_would_take_it_and_given_back(make_task, monkeypatch):
    task = make_task()
    monkeypatch.setattr(task.app, "producer_or_acquire", lambda producer: nullcontext(producer))
    (producer,) = published(task, 1)
    assert producer is not None
    assert is_at_hand(task.app)


@pytest.mark.parametrize("on_conflict", ["return", "ignore", "join", "raise"])
def test_a_duplicate_gives_it_back(make_task, on_conflict):
    task = make_task(on_conflict)
    task.delay(1)
    for _ in range(3):
        with pytest.raises(AlreadyQueuedError) if on_conflict == "raise" else nullcontext():
            task.delay(1)
    assert is_at_hand(task.app)


def test_a_publish_that_fails_gives_it_back(make_task):
    task = make_task()
    with pytest.raises(SerializerNotInstalled):
        task.apply_async((1,), serializer="unknown")
    assert is_at_hand(task.app)


def test_a_producer_that_cannot_be_taken_leaves_no_lock(make_task):
    """As after any publish that fails: the caller sees the error, and the key is free at once."""
    task = make_task()
    before = [lock["key"] for lock in locks(task.heimdall_store)]
    task.app.producer_pool.force_close_all(close_pool=True)
    try:
        with pytest.raises(RuntimeError, match="closed pool"):
            task.delay(1)
    finally:
        pools.reset()  # all applications of the process share it
    assert [lock["key"] for lock in locks(task.heimdall_store)] == before


def test_the_callers_own_is_used_and_left_to_them(make_task):
    task = make_task()
    with task.app.connection_for_write() as connection, task.app.amqp.Producer(connection) as own:
        assert published(task, 1, producer=own) == [own]
        assert published(task, 2, producer=own) == [own]


def test_where_none_is_at_hand_celery_waits_for_it(make_task):
    task = make_task()
    with ThreadPoolExecutor() as pool:
        with task.app.producer_pool.acquire(block=True):
            waiting = pool.submit(task.delay, 1)
            # The key is asked for, and the publish waits.
            eventually(lambda: len(list(locks(task.heimdall_store))) == 3)
            assert not waiting.done()
        assert waiting.result(30).deduplicated is False
