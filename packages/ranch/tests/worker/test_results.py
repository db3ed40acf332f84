"""The AsyncResult of `lru_delay` is the task's own, in what `test_road.py` does not show yet."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from celery.result import AsyncResult

from celery_toolkit_testkit import eventually


def test_states_from_pending_to_success_and_forgotten(fair, worker):
    waiting = fair.slow.lru_delay("a", "t", 1.0)
    assert (waiting.state, waiting.ready()) == ("PENDING", False)
    worker(concurrency=1)
    assert waiting.get(timeout=60) == "t"
    assert (waiting.state, waiting.result, waiting.successful()) == ("SUCCESS", "t", True)
    assert AsyncResult(waiting.id, app=fair.app).info == "t"
    waiting.forget()
    assert AsyncResult(waiting.id, app=fair.app).state == "PENDING"


def test_a_failure_has_its_type_and_traceback(fair, worker):
    worker(concurrency=1)
    failed = fair.fail.lru_delay("a", "no")
    with pytest.raises(ValueError, match="no"):
        failed.get(timeout=60)
    assert failed.state == "FAILURE"
    assert "raise ValueError(text)" in failed.traceback


def test_soft_time_limits_priorities_and_etas_are_the_calls_own(fair, worker, event_log, balanced):
    low = [fair.note.apply_async((f"low{n}",), lru_key="a", priority=9) for n in range(3)]
    high = fair.note.apply_async(("high",), lru_key="a", priority=0)
    worker(concurrency=1)
    assert [each.get(timeout=60) for each in [high, *low]] == ["high", "low0", "low1", "low2"]
    assert [each["text"] for each in event_log.events(what="note")] == ["high", "low0", "low1", "low2"]
    limited = fair.slow.apply_async(("s", 60), lru_key="a", soft_time_limit=1)
    with pytest.raises(SoftTimeLimitExceeded):
        limited.get(timeout=60)
    later = fair.note.apply_async(("later",), lru_key="a", eta=datetime.now(timezone.utc) + timedelta(seconds=1))
    assert later.get(timeout=60) == "later"
    never = fair.note.apply_async(("never",), lru_key="a", expires=datetime.now(timezone.utc) - timedelta(seconds=1))
    assert eventually(lambda: never.state == "REVOKED", timeout=60)
    eventually(lambda: balanced(waiting=0, in_flight=0, scheduled=0, expired=1, submitted=7))
