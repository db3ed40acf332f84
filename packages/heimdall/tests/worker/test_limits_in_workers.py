"""Limited tasks in real workers: never above the limit, and waiting costs no slot, no retry and no order."""

from __future__ import annotations

import pytest

from celery_heimdall import LimitRefused, set_limit
from celery_toolkit_testkit import eventually


def left_over(client):
    """Our keys but the limits' own, which end with their window, and the counter of arrivals."""
    return [key for key in client.keys("{heimdall:*") if b":limit" not in key and b":order" not in key]


def starts(event_log, name):
    return sorted(event["at"] for event in event_log.events(what="begin", task=name))


def most_in_any_window(moments, seconds):
    return max(sum(begin <= other <= begin + seconds for other in moments) for begin in moments)


def test_four_workers_over_a_slow_line_stay_below_their_limits(
    celery_app_module, celery_worker_process, event_log, redis_client, tcp_proxy, monkeypatch
):
    """celery-heimdall 1.0 starts 198 of 200 in a second, over a slow line twice its limit, and max_retries is None."""
    proxy = tcp_proxy()
    proxy.latency = 0.005
    monkeypatch.setenv("GUARDED_REDIS", proxy.url)
    app = celery_app_module("guarded")
    for number in range(4):
        celery_worker_process("guarded", concurrency=2, wait=number == 3)
    for number in range(6):
        app.one_in_half.delay(number)
    for number in range(40):
        app.ten_a_second.delay(number)
    begun = event_log.wait_for(46, what="begin")
    assert len({event["id"] for event in begun}) == 46
    tens = [event for event in begun if event["task"] == "ten_a_second"]
    assert {(event["retries"], event["max_retries"]) for event in tens} == {(0, 3)}
    # By the clock of Redis, both ends of the window included.
    assert most_in_any_window([event["stamp"] / 1e6 for event in tens], 1.0) <= 10
    halves = [event["stamp"] / 1e6 for event in begun if event["task"] == "one_in_half"]
    assert most_in_any_window(halves, 0.5) == 1
    eventually(lambda: not left_over(redis_client))


def test_the_third_and_fourth_wait_for_the_next_window_in_the_order_of_their_calls(
    celery_app_module, celery_worker_process, event_log
):
    app = celery_app_module("guarded")
    celery_worker_process("guarded")
    for number in range(6):
        app.two_in_two.delay(number)
    begun = sorted(event_log.wait_for(6, what="begin"), key=lambda event: event["at"])
    moments = [event["at"] - begun[0]["at"] for event in begun]
    assert {event["key"] for event in begun[2:4]} == {2, 3}
    assert {event["key"] for event in begun[4:]} == {4, 5}
    assert 1.9 < moments[2] <= moments[3] < 4
    assert 3.9 < moments[4] <= moments[5] < 6


def test_unique_limited_and_retried_together(celery_app_module, celery_worker_process, event_log):
    """celery-heimdall 1.0: stuck for ever with a limit on a unique task; 20 of 30 limited retries were lost."""
    app = celery_app_module("guarded")
    celery_worker_process("guarded")
    results = [app.unique_limited.delay(number, times=1) for number in range(3)]
    assert app.unique_limited.delay(2, times=1).id == results[2].id
    assert [result.get(timeout=60) for result in results] == [0, 1, 2]
    assert [event["retries"] for event in event_log.events(what="begin", key=2)] == [0, 1]
    assert most_in_any_window(starts(event_log, "unique_limited"), 0.9) <= 2


def test_no_more_bodies_at_once_than_the_concurrency_limit_and_others_are_not_held_up(
    celery_app_module, celery_worker_process, event_log
):
    app = celery_app_module("guarded")
    celery_worker_process("guarded", concurrency=4)
    results = [app.two_at_once.delay(number, 0.4) for number in range(8)]
    assert app.plain.delay("free").get(timeout=30) == "free"
    for result in results:
        result.get(timeout=60)
    running = most = 0
    for event in event_log.events(task="two_at_once"):
        running += 1 if event["what"] == "begin" else -1
        most = max(most, running)
    assert most == 2


def test_each_tenant_has_its_own_limit_and_a_failing_limit_function_fails_the_task(
    celery_app_module, celery_worker_process, event_log
):
    app = celery_app_module("guarded")
    celery_worker_process("guarded")
    for tenant in ("a", "b", "a"):
        app.per_tenant.delay(tenant)
    begun = event_log.wait_for(3, what="begin")
    moments = {tenant: [event["at"] for event in begun if event["key"] == tenant] for tenant in "ab"}
    assert moments["b"][0] < moments["a"][1]
    assert moments["a"][1] - moments["a"][0] > 1.9
    failed = app.dynamic.delay(limit=[0, 60])
    with pytest.raises(LimitRefused, match="times"):
        failed.get(timeout=30)
    assert app.dynamic.delay(limit=[5, 60]).get(timeout=30) == f"0 by {event_log.events(task='dynamic')[0]['id']}"


def test_parked_tasks_survive_the_death_of_every_worker(celery_app_module, celery_worker_process, event_log):
    app = celery_app_module("guarded")
    first = celery_worker_process("guarded")
    for number in range(8):
        app.two_in_two.delay(number)
    # The window's two, and the next two: four are parked then, and no body is about to begin, which a kill would cost.
    event_log.wait_for(4, what="begin")
    first.kill()
    celery_worker_process("guarded")
    begun = event_log.wait_for(8, what="begin")
    assert sorted(event["key"] for event in begun) == list(range(8))


def test_a_start_may_cost_more_or_less_and_be_settled_and_stopped(celery_app_module, celery_worker_process, event_log):
    app = celery_app_module("guarded")
    celery_worker_process("guarded")
    # 8 of 10, then 8 more do not fit for 3 seconds; settled down to 1, they do.
    app.costly.delay(1, tokens=8)
    app.costly.delay(2, tokens=8)
    first, second = event_log.wait_for(2, what="begin")
    assert second["at"] - first["at"] > 2.9
    app.costly.delay(3, tokens=2, used=0)
    event_log.wait_for(1, what="settled", counted=True)
    app.costly.delay(4, tokens=2, stop=2.0)
    stopped = event_log.wait_for(1, what="begin", key=4)[0]
    app.costly.delay(5, tokens=0)
    assert event_log.wait_for(1, what="begin", key=5)[0]["at"] - stopped["at"] > 1.8
    with pytest.raises(LimitRefused, match="cost"):
        app.costly.delay(6, tokens=11).get(timeout=30)


def test_large_and_packed_messages_wait_and_come_back_whole(celery_app_module, celery_worker_process):
    app = celery_app_module("strained")
    set_limit("sizes", "paused", app=app.app)
    worker = celery_worker_process("strained")
    results = [
        app.sized.apply_async((size * "x",), compression=how) for size, how in ((5_000_000, None), (7_000, "gzip"))
    ]
    worker.wait_for_log("task_parked", count=2)
    set_limit("sizes", None, app=app.app)
    assert [result.get(timeout=60) for result in results] == [5_000_000, 7_000]
