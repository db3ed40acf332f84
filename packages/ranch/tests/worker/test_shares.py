"""Shares of the worker's time, with a real worker: weights, weight functions, running time, caps and pauses."""

from __future__ import annotations

import pytest
from celery.app.defaults import NAMESPACES

from celery_ranch import Clients, audit
from celery_toolkit_testkit import eventually


def test_weights_and_weight_functions_and_pauses(fair, worker, balanced, event_log):
    """Weights 0.5, 1 and 2, all busy: served 4 : 2 : 1. A function that raises falls back to the static weight."""
    for label, weight in (("gold", 0.5), ("silver", 1.0), ("bronze", 2.0)):
        fair.note.set_priority_weight(label, weight)
    for label, number in (("gold", 220), ("silver", 120), ("bronze", 70)):
        for _ in range(number):
            fair.note.lru_delay(label, label)
    clients = Clients(fair.app)
    fair.weighed.set_custom_data("heavy", "impact", 3.0)
    for _ in range(40):
        for label in ("heavy", "light", "broken"):
            fair.weighed.apply_async((label,), lru_key=label, queue="functions")
    clients.pause("paused")
    fair.note.lru_delay("paused", "paused")
    started = worker(concurrency=1, queues=["celery", "functions"])
    event_log.wait_for(410, what="note")
    event_log.wait_for(120, what="weighed")
    order = [each["text"] for each in event_log.events(what="note")][:350]
    assert "paused" not in order
    assert [order.count(label) for label in ("gold", "silver", "bronze")] == pytest.approx([200, 100, 50], rel=0.05)
    weighed = [each["text"] for each in event_log.events(what="weighed")][:70]
    assert [weighed.count(label) for label in ("heavy", "light", "broken")] == pytest.approx([10, 30, 30], abs=2)
    assert started.log().count("weight_function_failed") == 1
    assert balanced(waiting=1)
    clients.resume("paused")
    event_log.wait_for(1, what="note", text="paused")
    eventually(lambda: balanced(waiting=0, in_flight=0, done=531))


@pytest.mark.parametrize(
    ("slow", "fast"), [(0.15, 0.015), pytest.param(1.0, 0.1, marks=pytest.mark.long)], ids=["short", "long"]
)
def test_by_running_time_clients_share_seconds(celery_app_module, celery_worker_process, event_log, slow, fast):
    """Ten times as long each: by count it would be 91 : 9. What counts is how long they took on this machine."""
    timed = celery_app_module("ranch_apart").timed
    for _ in range(50):
        timed.lru_apply_async("slow", ("slow", slow), ignore_result=True)
    for _ in range(600):
        timed.lru_apply_async("fast", ("fast", fast), ignore_result=True)
    started = celery_worker_process("ranch_apart", concurrency=1)
    event_log.wait_for(40, what="timed", text="slow", timeout=180)
    started.destroy()
    spent = {
        label: sum(each["seconds"] for each in event_log.events(what="timed", text=label)) for label in ("slow", "fast")
    }
    assert spent["slow"] / sum(spent.values()) == pytest.approx(0.5, abs=0.03)


def test_a_cap_bounds_what_is_in_flight_and_nothing_stalls(fair, worker, balanced, event_log):
    clients = Clients(fair.app)
    clients.set_max_in_flight("capped", 1)
    for number in range(12):
        fair.slow.lru_delay("capped", f"capped{number}", 0.1)
    fair.slow.lru_delay("free", "free", 0.1)
    worker(concurrency=4)
    running = set()
    event_log.wait_for(13, what="end")
    for each in event_log.events():
        if each["text"].startswith("capped"):
            running.add(each["text"]) if each["what"] == "start" else running.discard(each["text"])
            assert len(running) <= 1
    eventually(lambda: balanced(waiting=0, in_flight=0, done=13))


NO_PREFETCH = pytest.mark.skipif(
    "disable_prefetch" not in NAMESPACES["worker"], reason="this Celery has no worker_disable_prefetch"
)


@pytest.mark.parametrize(
    ("acks_late", "disabled", "most"),
    [("1", "0", 2), ("0", "0", 4), pytest.param("0", "1", 2, marks=NO_PREFETCH)],
    ids=["late", "early", "prefetch disabled"],
)
def test_a_worker_does_not_hoard(fair, worker, event_log, acks_late, disabled, most):
    """Prefetch 1: `concurrency` tasks claimed with late acknowledgement, twice that with early."""
    for number in range(20):
        fair.slow.lru_delay("a", f"t{number}", 0.4)
    worker(concurrency=2, env={"ACKS_LATE": acks_late, "DISABLE_PREFETCH": disabled})
    seen = 0
    while len(event_log.events(what="end")) < 10:
        seen = max(seen, audit(fair.app)["in_flight"])
    assert 1 <= seen <= most
