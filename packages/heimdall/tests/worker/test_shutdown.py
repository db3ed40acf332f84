"""Shutdowns with one body running and more tasks fetched: each ends with its worker or is handed back, none is lost."""

from __future__ import annotations

import signal

import pytest

from celery_toolkit_testkit import eventually


@pytest.mark.parametrize("how", ["warm", "soft", "cold"])
def test_what_was_fetched_is_handed_back_with_its_key(how, celery_app_module, celery_worker_process, event_log):
    app = celery_app_module("strained")
    seconds = {"warm": 2.0, "soft": 2.0, "cold": 30.0}[how]
    worker = celery_worker_process("strained", concurrency=1, env={"SOFT_SHUTDOWN": "4" if how == "soft" else "0"})
    first = app.unique_late.delay("a", seconds=seconds)
    others = [app.unique_late.delay(key) for key in "bc"]
    event_log.wait_for(1, what="begin")
    for result in others:
        worker.wait_for_log(f"Task unique_late[{result.id}] received")
    worker.stop(signal.SIGTERM if how == "warm" else signal.SIGQUIT)
    ended = event_log.events(what="end")
    assert [event["id"] for event in ended] == ([] if how == "cold" else [first.id])
    # Handed back, they keep their keys and run under the next worker; nobody has to wait for a lease.
    assert [app.unique_late.delay(key).id for key in "bc"] == [result.id for result in others]
    if how == "cold":
        assert app.unique_late.delay("a", seconds=0.0).id == first.id
        first.revoke()
    second = celery_worker_process("strained", concurrency=2)
    for result in others:
        result.get(timeout=60)
    begun = event_log.events(what="begin")
    assert sorted(event["key"] for event in begun if event["key"] != "a") == ["b", "c"]
    if how == "cold":
        event_log.wait_for(2, what="begin", key="a")
        assert event_log.events(what="begin", key="a")[1]["fence"] > begun[0]["fence"]
        second.kill()
    else:
        eventually(lambda: not app.unique_late.delay("a").deduplicated)
