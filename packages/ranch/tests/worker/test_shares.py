"""Shares of the worker's time, with a real worker: weights, weight functions, running time, caps and pauses."""

from __future__ import annotations

import pytest

from celery_ranch import Clients, audit
from celery_toolkit_testkit import eventually


def test_weights_and_weight_functions_and_pauses(fair, worker, balanced, event_log):
    """Weights 0.5, 1 and 2, all busy: served 4 : 2 : 1. A function that raises falls back to the static weight."""
    for label, weight in (("gold", 0.5), ("silver", 1.0), ("bronze", 2.0)):
        fair.note.set_priority_weight(label, weight)
    for _ in range(80):
        for label in ("gold", "silver", "bronze"):
            fair.note.lru_delay(label, label)
    clients = Clients(fair.app)
    fair.weighed.set_custom_data("heavy", "impact", 3.0)
    for _ in range(40):
        for label in ("heavy", "light", "broken"):
            fair.weighed.apply_async((label,), lru_key=label, queue="functions")
    clients.pause("paused")
    fair.note.lru_delay("paused", "paused")
    started = worker(concurrency=1, queues=["celery", "functions"])
    event_log.wait_for(240, what="note")
    event_log.wait_for(120, what="weighed")
    order = [each["text"] for each in event_log.events(what="note")][:105]
    assert "paused" not in order
    assert [order.count(label) for label in ("gold", "silver", "bronze")] == pytest.approx([60, 30, 15], abs=3)
    weighed = [each["text"] for each in event_log.events(what="weighed")][:70]
    assert [weighed.count(label) for label in ("heavy", "light", "broken")] == pytest.approx([10, 30, 30], abs=2)
    assert started.log().count("weight_function_failed") == 1
    assert balanced(waiting=1)
    clients.resume("paused")
    event_log.wait_for(1, what="note", text="paused")
    eventually(lambda: balanced(waiting=0, in_flight=0, done=361))


def test_by_running_time_clients_share_seconds(fair, worker, event_log):
    """Tasks of 0.3 s and 0.03 s: by count it would be 91 : 9."""
    for _ in range(25):
        fair.timed.lru_delay("slow", "slow", 0.3)
    for _ in range(250):
        fair.timed.lru_delay("fast", "fast", 0.03)
    started = worker(concurrency=1)
    event_log.wait_for(16, what="timed", text="slow")
    started.destroy()
    spent = {
        label: sum(each["seconds"] for each in event_log.events(what="timed", text=label)) for label in ("slow", "fast")
    }
    assert spent["slow"] / sum(spent.values()) == pytest.approx(0.5, abs=0.1)


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


@pytest.mark.parametrize(("acks_late", "most"), [("1", 2), ("0", 4)])
def test_a_worker_does_not_hoard(fair, worker, event_log, acks_late, most):
    """Prefetch 1: `concurrency` tasks claimed with late acknowledgement, twice that with early."""
    for number in range(20):
        fair.slow.lru_delay("a", f"t{number}", 0.4)
    worker(concurrency=2, env={"ACKS_LATE": acks_late})
    seen = 0
    while len(event_log.events(what="end")) < 10:
        seen = max(seen, audit(fair.app)["in_flight"])
    assert 1 <= seen <= most
