"""Unique tasks in real workers: one at a time, and the key is free again whatever way the task ends."""

from __future__ import annotations

import os
import signal

import pytest

from celery_heimdall.inspection import locks
from celery_toolkit_core.local_server import LocalServer
from celery_toolkit_testkit import eventually


def put_twice(app):
    """Give the broker a second copy of the only message in the queue."""
    with app.connection_for_read() as connection, connection.channel() as channel:
        message = channel._get("celery")
        channel._put("celery", message)
        channel._put("celery", message)


def test_a_second_call_gets_the_first_ones_handle_until_it_has_ended(celery_app_module, celery_worker_process):
    app = celery_app_module("guarded")
    first = app.unique.delay("a", seconds=1.0)
    celery_worker_process("guarded")
    second = app.unique.delay("a", seconds=1.0)
    assert (second.id, second.deduplicated) == (first.id, True)
    first.get(timeout=60)
    third = eventually(lambda: not (again := app.unique.delay("a", seconds=1.0)).deduplicated and again)
    assert third.id != first.id
    third.get(timeout=60)


def test_all_of_twenty_retried_tasks_complete(celery_app_module, celery_worker_process):
    """celery-heimdall 1.0 and celery-singleton lose 20 of 20: the retry meets its own lock."""
    app = celery_app_module("guarded")
    celery_worker_process("guarded")
    results = [app.retrying.delay(number, times=2) for number in range(20)]
    assert [result.get(timeout=60) for result in results] == [2] * 20


@pytest.fixture
def long_lease(monkeypatch):
    """Whoever does not release keeps the key for longer than a test waits."""
    monkeypatch.setenv("GUARDED_LEASE", "120")


def test_the_key_is_free_at_once_whatever_the_body_did(long_lease, celery_app_module, celery_worker_process, event_log):
    """Peers keep the lock until its timeout when the child is killed."""
    app = celery_app_module("guarded")
    celery_worker_process("guarded")
    for number, how in enumerate(("success", "failure", "ignore", "reject", "child killed"), start=1):
        app.ending.delay("a", how)
        event_log.wait_for(2 * number - 1, what="end")
        eventually(lambda: not app.ending.delay("a", how).deduplicated)  # noqa: B023  # called before the next turn
        event_log.wait_for(2 * number, what="end")


def test_a_duplicate_past_apply_async_neither_runs_nor_frees_nor_reports_success(
    celery_app_module, celery_worker_process, event_log
):
    """celery-heimdall 1.0 reports SUCCESS for it, and deletes the owner's lock."""
    app = celery_app_module("guarded")
    celery_worker_process("guarded")
    owner = app.unique.delay("a", seconds=2.0)
    event_log.wait_for(1, what="begin")
    sent = app.app.send_task("unique", ("a",), {"seconds": 0.0})
    eventually(lambda: sent.state == "REVOKED")
    assert app.unique.delay("a", seconds=2.0).id == owner.id
    owner.get(timeout=60)
    assert [event["id"] for event in event_log.events(what="begin")] == [owner.id]
    # The result is there a moment before the worker gives the key back.
    eventually(lambda: not list(locks(app.unique.heimdall_store)))
    again = app.app.send_task("unique", ("a",), {"seconds": 0.0})
    assert again.get(timeout=60)


def test_a_message_that_comes_twice_runs_once(celery_app_module, celery_worker_process, event_log):
    """A publish whose answer was lost is sent again; a broker may also deliver the same message to two workers."""
    app = celery_app_module("guarded")
    first = app.unique.delay("a", seconds=0.5)
    put_twice(app.app)
    celery_worker_process("guarded", concurrency=4)
    first.get(timeout=60)
    assert app.unique.apply_async(("b",), {"seconds": 0.1}).get(timeout=60)
    assert len(event_log.events(what="begin", key="a")) == 1


def test_a_task_longer_than_its_timeout_is_not_overlapped(celery_app_module, celery_worker_process, event_log):
    """Peers run three at once: their lock ends while the body goes on."""
    app = celery_app_module("guarded")
    celery_worker_process("guarded", concurrency=4)
    first = app.brief.delay("a", seconds=5.0)
    event_log.wait_for(1, what="begin")
    second = eventually(lambda: not (next_one := app.brief.delay("a")).deduplicated and next_one)
    assert second.id != first.id
    second.get(timeout=60)
    assert [(event["what"], event["id"]) for event in event_log.events()] == [
        ("begin", first.id),
        ("end", first.id),
        ("begin", second.id),
        ("end", second.id),
    ]
    begun = event_log.events(what="begin")
    assert begun[0]["fence"] < begun[1]["fence"]


def test_a_killed_workers_key_is_free_within_its_lease(celery_app_module, celery_worker_process, event_log):
    """Peers keep the lock for an hour."""
    app = celery_app_module("guarded")
    worker = celery_worker_process("guarded")
    app.unique.delay("a", seconds=60)
    event_log.wait_for(1, what="begin")
    worker.kill()
    (lock,) = locks(app.unique.heimdall_store)
    assert lock["lease_ends_in"] <= 3.0
    celery_worker_process("guarded")
    fresh = eventually(lambda: not (again := app.unique.delay("a", seconds=60)).deduplicated and again)
    event_log.wait_for(2, what="begin", timeout=20)
    assert event_log.events(what="begin")[1]["id"] == fresh.id


@pytest.mark.parametrize("how", ["revoked", "expired", "terminated", "time limit"])
def test_the_key_is_free_at_once_after_a_task_was(how, long_lease, celery_app_module, celery_worker_process, event_log):
    """Peers keep the lock in 15 of 15 such cases."""
    app = celery_app_module("guarded")
    options = {"expired": {"expires": 0.01}, "time limit": {"time_limit": 1}}.get(how, {})
    if how == "revoked":
        celery_worker_process("guarded", quiet=False)
        blockers = [app.unique.delay(str(number), seconds=3.0) for number in range(2)]
        event_log.wait_for(2, what="begin")
        app.unique.apply_async(("a",), {"seconds": 30}).revoke()
        blockers[0].get(timeout=60)
    else:
        first = app.unique.apply_async(("a",), {"seconds": 30}, **options)
        celery_worker_process("guarded")
        if how == "terminated":
            event_log.wait_for(1, what="begin")
            first.revoke(terminate=True)
    eventually(lambda: not app.unique.delay("a", seconds=30).deduplicated)


def test_one_may_wait_while_one_runs(celery_app_module, celery_worker_process, event_log):
    app = celery_app_module("guarded")
    celery_worker_process("guarded", concurrency=4)
    first = app.one_waits.delay("a", seconds=1.0)
    event_log.wait_for(1, what="begin")
    second = eventually(lambda: not (again := app.one_waits.delay("a", seconds=1.0)).deduplicated and again)
    third = app.one_waits.delay("a", seconds=1.0)
    assert third.id == second.id
    second.get(timeout=60)
    assert [event["id"] for event in event_log.events()] == [first.id, first.id, second.id, second.id]


@pytest.mark.parametrize("name", ["from_start", "from_start_limited"])
def test_the_next_may_be_queued_and_run_once_the_body_has_started(
    name, celery_app_module, celery_worker_process, event_log
):
    app = celery_app_module("strained")
    task = app.app.tasks[name]
    first = task.delay("a", seconds=3.0)
    assert task.delay("a").id == first.id
    celery_worker_process("strained", concurrency=2)
    second = eventually(lambda: not (again := task.delay("a")).deduplicated and again)
    second.get(timeout=60)
    first.get(timeout=60)
    assert [(event["what"], event["id"]) for event in event_log.events()] == [
        ("begin", first.id),
        ("begin", second.id),
        ("end", second.id),
        ("end", first.id),
    ]
    eventually(lambda: not list(locks(task.heimdall_store)))


def test_what_celery_retries_by_itself_keeps_its_key(celery_app_module, celery_worker_process, event_log):
    app = celery_app_module("strained")
    celery_worker_process("strained")
    results = [app.stubborn.delay(number) for number in range(5)]
    event_log.wait_for(1, what="begin", key=4)
    assert app.stubborn.delay(4).id == results[4].id
    assert [result.get(timeout=60) for result in results] == [2] * 5
    assert len(event_log.events(what="begin")) == 15


def test_a_task_in_a_redis_of_its_own_keeps_everything_there(
    celery_app_module, celery_worker_process, event_log, redis_client, monkeypatch
):
    with LocalServer() as server:
        monkeypatch.setenv("ELSEWHERE", server.url)
        app = celery_app_module("elsewhere")
        celery_worker_process("elsewhere", concurrency=2)
        first = app.elsewhere.delay("a", seconds=4.0)
        event_log.wait_for(1, what="begin")
        # Longer than a lease: it is renewed there as well.
        duplicate = app.app.send_task("elsewhere", ("a",))
        eventually(lambda: duplicate.state == "REVOKED")
        others = [app.elsewhere.delay(key) for key in "bc"]
        for result in (first, *others):
            result.get(timeout=60)
        stamps = sorted(event["stamp"] for event in event_log.events(what="begin"))
        assert stamps[2] - stamps[0] > 2e6
        eventually(lambda: not list(locks(app.elsewhere.heimdall_store)))
        assert not redis_client.keys("{heimdall*")


def test_a_call_by_hand_in_a_body_takes_and_leaves_no_lock(celery_app_module, celery_worker_process, event_log):
    app = celery_app_module("strained")
    celery_worker_process("strained")
    holder = app.unique.delay("a", seconds=1.5)
    event_log.wait_for(1, what="begin")
    assert len(app.by_hand.delay("a").get(timeout=60)) == 2
    (lock,) = locks(app.unique.heimdall_store)
    assert lock["holder"] == holder.id
    holder.get(timeout=60)
    eventually(lambda: not list(locks(app.unique.heimdall_store)))


def test_a_key_kept_until_its_expiry_outlives_its_task(celery_app_module, celery_worker_process, event_log):
    app = celery_app_module("guarded")
    celery_worker_process("guarded")
    first = app.interval.delay("a")
    first.get(timeout=60)
    assert app.interval.delay("a").id == first.id
    sent = app.app.send_task("interval", ("a",))
    eventually(lambda: sent.state == "REVOKED")
    assert len(event_log.events(what="begin")) == 1


def test_a_message_delivered_again_waits_for_its_own_body_and_runs_if_that_died(
    celery_app_module, celery_worker_process, event_log
):
    """With late acknowledgement a broker delivers again what runs too long: peers run 4 at once.

    When the worker dies, that copy is the only one left.
    """
    app = celery_app_module("guarded")
    first = app.unique_late.delay("a", seconds=4.0)
    put_twice(app.app)
    worker = celery_worker_process("guarded", concurrency=4)
    event_log.wait_for(1, what="begin")
    worker.wait_for_log("task_parked")
    worker.kill()
    celery_worker_process("guarded")
    first.get(timeout=60)
    begun = event_log.events(what="begin")
    assert {event["id"] for event in begun} == {first.id}
    assert len(begun) == 2
    assert begun[0]["fence"] < begun[1]["fence"]


def test_a_frozen_worker_loses_its_lock_and_cannot_free_its_successors(
    celery_app_module, celery_worker_process, event_log
):
    app = celery_app_module("guarded")
    frozen = celery_worker_process("guarded", concurrency=1)
    first = app.unique.delay("a", seconds=12.0)
    event_log.wait_for(1, what="begin")
    for pid in (frozen.pid, *frozen.child_pids()):
        os.kill(pid, signal.SIGSTOP)
    celery_worker_process("guarded", concurrency=1)
    second = eventually(lambda: not (again := app.unique.delay("a", seconds=12.0)).deduplicated and again)
    begun = event_log.wait_for(2, what="begin")
    for pid in (*frozen.child_pids(), frozen.pid):
        os.kill(pid, signal.SIGCONT)
    frozen.wait_for_log("lock_lost")
    event_log.wait_for(1, what="end", id=first.id)
    assert app.unique.delay("a", seconds=12.0).id == second.id
    assert begun[0]["fence"] < begun[1]["fence"]
    second.get(timeout=60)


@pytest.mark.parametrize("pool", ["threads", "solo", "gevent"])
def test_other_pools_renew_leases_and_keep_limits_too(pool, celery_app_module, celery_worker_process, event_log):
    app = celery_app_module("guarded")
    worker = celery_worker_process("guarded", pool=pool, concurrency=4)
    limited = [app.two_in_two.delay(number) for number in range(3)]
    first = app.unique.delay("a", seconds=4.0)
    event_log.wait_for(1, what="begin", task="unique")
    sent = app.app.send_task("unique", ("a",), {"seconds": 0.0})
    for result in (first, *limited):
        result.get(timeout=60)
    eventually(lambda: sent.ready())
    overlapping = [event["what"] for event in event_log.events(task="unique")]
    assert overlapping in (["begin", "end"], ["begin", "end", "begin", "end"])
    stamps = sorted(event["stamp"] / 1e6 for event in event_log.events(what="begin", task="two_in_two"))
    assert stamps[2] - stamps[0] > 2.0
    assert "lock_lost" not in worker.log()


def test_our_redis_may_go_and_come_back_while_tasks_wait_and_run(
    celery_app_module, celery_worker_process, event_log, tcp_proxy, monkeypatch
):
    """The result of a running task is kept; what comes meanwhile goes back to the broker and runs later."""
    proxy = tcp_proxy()
    monkeypatch.setenv("GUARDED_REDIS", proxy.url)
    app = celery_app_module("guarded")
    worker = celery_worker_process("guarded")
    running = app.unique.delay("a", seconds=3.0)
    event_log.wait_for(1, what="begin")
    with proxy.refusing():
        proxy.cut()
        app.app.send_task("unique", ("b",))
        assert running.get(timeout=60)
        worker.wait_for_log("A gate failed")
    event_log.wait_for(1, what="end", key="b")
    eventually(lambda: not app.unique.delay("a", seconds=3.0).deduplicated)
