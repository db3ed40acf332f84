"""What becomes of a task that a limit refuses, where its author wants something else than to wait in line."""

from __future__ import annotations

import pytest
from celery import chord
from celery.exceptions import ChordError, TaskRevokedError

from celery_heimdall import LimitExceeded, set_limit
from celery_heimdall.inspection import locks, parked
from celery_toolkit_testkit import eventually

#: Sent with a countdown, a task meets its limit not when it is received but when its body starts.
LATER = pytest.mark.parametrize("countdown", [None, 0.1], ids=["now", "later"])
#: One strategy shows the second road in the ordinary suite; the others follow it in the long one.
LATER_TOO = pytest.mark.parametrize(
    "countdown", [None, pytest.param(0.1, marks=pytest.mark.long)], ids=["now", "later"]
)


@LATER_TOO
def test_a_retried_task_has_that_state_tries_again_and_counts_no_retry(
    countdown, celery_app_module, celery_worker_process, event_log
):
    """In celery-heimdall 1.0 one refusal makes max_retries None for the whole process."""
    app = celery_app_module("ruled")
    celery_worker_process("ruled")
    results = [app.again.apply_async((key,), countdown=countdown) for key in "abc"]
    eventually(lambda: sum(result.state == "RETRY" for result in results) == 2)
    # It keeps its key while it waits.
    waiting = next(result for result in results if result.state == "RETRY")
    assert app.again.delay("abc"[results.index(waiting)]).id == waiting.id
    assert [result.get(timeout=60) for result in results] == ["a", "b", "c"]
    begun = event_log.events(what="begin")
    assert {(event["retries"], event["max_retries"]) for event in begun} == {(0, 3)}
    assert len(begun) == 3
    eventually(lambda: not list(locks(app.again.heimdall_store)))


@LATER
def test_a_dropped_task_is_revoked_and_frees_its_key(countdown, celery_app_module, celery_worker_process, event_log):
    app = celery_app_module("ruled")
    celery_worker_process("ruled")
    assert app.dropped.delay("a").get(timeout=60) == "a"
    second = app.dropped.apply_async(("b",), countdown=countdown)
    with pytest.raises(TaskRevokedError, match="rare is full"):
        second.get(timeout=60)
    eventually(lambda: not list(locks(app.dropped.heimdall_store)))
    assert len(event_log.events(what="begin")) == 1


def test_a_chord_with_a_dropped_member_ends(celery_app_module, celery_worker_process):
    app = celery_app_module("ruled")
    celery_worker_process("ruled")
    with pytest.raises((ChordError, TaskRevokedError), match="rare is full"):
        chord([app.dropped.s("a"), app.dropped.s("b")], app.total.s()).delay().get(timeout=60)


@LATER_TOO
def test_a_raising_limit_fails_the_task_with_data(countdown, celery_app_module, celery_worker_process, event_log):
    app = celery_app_module("ruled")
    celery_worker_process("ruled")
    assert app.raised.delay("a").get(timeout=60) == "a"
    with pytest.raises(LimitExceeded) as caught:
        app.raised.apply_async(("b",), countdown=countdown).get(timeout=60)
    assert caught.value.blocked_by == ("raised",)
    assert 3500 < caught.value.retry_after <= 3600
    eventually(lambda: not list(locks(app.raised.heimdall_store)))
    assert len(event_log.events(what="begin")) == 1


def test_of_several_limits_the_one_that_refuses_says_what_happens(celery_app_module, celery_worker_process, event_log):
    app = celery_app_module("ruled")
    celery_worker_process("ruled")
    first = app.mixed.delay("a", seconds=2.0)
    event_log.wait_for(1, what="begin")
    second = app.mixed.delay("b")  # waits for the desk, not for the hour
    assert [first.get(timeout=60), second.get(timeout=60)] == ["a", "b"]
    with pytest.raises(LimitExceeded, match="desk"):
        app.mixed.delay("c").get(timeout=60)


def test_a_task_that_is_revoked_while_it_is_parked_does_not_run(celery_app_module, celery_worker_process, event_log):
    app = celery_app_module("ruled")
    worker = celery_worker_process("ruled")
    revoked, other = (app.paused.delay(key) for key in "ab")
    eventually(lambda: len(list(parked(app.paused.heimdall_store))) == 2)
    revoked.revoke()
    worker.wait_for_log(f"Tasks flagged as revoked: {revoked.id}")
    set_limit("stopped", "resumed", app=app.app)
    assert other.get(timeout=60) == "b"
    eventually(lambda: revoked.state == "REVOKED")
    assert [event["key"] for event in event_log.events(what="begin")] == ["b"]
    eventually(lambda: not list(parked(app.paused.heimdall_store)))


def test_a_paused_limit_lets_nothing_start_until_it_is_given_a_value(
    celery_app_module, celery_worker_process, event_log
):
    app = celery_app_module("ruled")
    celery_worker_process("ruled")
    results = [app.paused.delay(key) for key in "abc"]
    eventually(lambda: len(list(parked(app.paused.heimdall_store))) == 3)
    assert event_log.events(what="begin") == []
    set_limit("stopped", "resumed", app=app.app)
    assert [result.get(timeout=60) for result in results] == ["a", "b", "c"]
    set_limit("stopped", None, app=app.app)
    last = app.paused.delay("d")
    eventually(lambda: len(list(parked(app.paused.heimdall_store))) == 1)
    set_limit("stopped", "1/s", app=app.app)
    assert last.get(timeout=60) == "d"
