"""Limits over a slow line: never above the limit by the clock of Redis, and hardly later than it allows."""

from __future__ import annotations

import json

import pytest

from celery_toolkit_testkit import eventually

LIMITS = {"ten_per_second": (10, 1.0), "ten_per_ten": (10, 10.0), "two_per_ten": (2, 10.0), "one_per_half": (1, 0.5)}
WORKERS, PROCESSES = 4, 4
LATENCY = 0.005


def most_in_any_window(moments, seconds):
    """Both ends of a window belong to it."""
    return max(sum(begin <= other <= begin + seconds for other in moments) for begin in moments)


class Line:
    """Who waits in Redis, looked at again and again: nobody is let go before one who came earlier and still waits.

    Workers take from the queue side by side, and start bodies so: the order that is kept is that of the arrivals in
    Redis. One that was let go and came back, because its worker was too slow, stands where it stood before; that others
    went meanwhile is no fault.

    Attributes:
        overtaken: Pairs of the order of one who waits and of one who was let go before it.
        seen: How many were seen to wait while another of their limit was let go.
    """

    def __init__(self, client):
        self.client = client
        self.overtaken = []
        self._let_go, self._waited = set(), set()

    @property
    def seen(self):
        return len(self._waited)

    def look(self):
        for items in self.client.scan_iter("{heimdall*:v1:items"):
            lanes = {}
            for task_id, text in self.client.hgetall(items).items():
                item = json.loads(text)
                waiting, going = lanes.setdefault(item["lane"], ([], []))
                if item["state"] != "parked":
                    self._let_go.add(task_id)
                    going.append(item["order"])
                elif task_id not in self._let_go:
                    waiting.append((item["order"], task_id))
            for waiting, going in lanes.values():
                if waiting and going:
                    self._waited.update(task_id for _, task_id in waiting)
                    if min(waiting)[0] < max(going):
                        self.overtaken.append((min(waiting)[0], max(going)))


def run(counts, celery_app_module, celery_worker_process, event_log, tcp_proxy, monkeypatch, redis_client):
    """All limits at once: the stamps of each, and the parkings per task."""
    proxy = tcp_proxy()
    proxy.latency = LATENCY
    monkeypatch.setenv("GUARDED_REDIS", proxy.url)
    app = celery_app_module("strained")
    # The clock of one machine is an hour ahead, that of another an hour behind.
    skews = ["0", "3600", "-3600", "0"]
    workers = [
        celery_worker_process("strained", concurrency=PROCESSES, wait=False, env={"CLOCK_SKEW": skews[number]})
        for number in range(WORKERS)
    ]
    for worker in workers:
        worker.wait_ready()
    line = Line(redis_client)
    for name, count in counts.items():
        for number in range(count):
            app.app.tasks[name].delay(number)
            if number % 10 == 0:
                line.look()
    total = sum(counts.values())
    eventually(
        lambda: (line.look(), len(event_log.events()) >= total)[1], 120.0, f"{total} tasks to begin", interval=0.1
    )
    assert line.overtaken == []
    assert line.seen >= 10
    begun = event_log.events()
    assert len({(event["task"], event["number"]) for event in begun}) == len(begun) == total
    assert {(event["retries"], event["max_retries"]) for event in begun} == {(0, 3)}
    parkings = sum(worker.log().count("task_parked") for worker in workers)
    stamps = {}
    for name, (times, per) in LIMITS.items():
        events = sorted(event_log.events(task=name), key=lambda event: event["stamp"])
        stamps[name] = [event["stamp"] - events[0]["stamp"] for event in events]
        assert most_in_any_window(stamps[name], per) <= times, name
    return stamps, parkings / total


def test_four_workers_over_a_slow_line_keep_four_limits(
    celery_app_module, celery_worker_process, event_log, tcp_proxy, monkeypatch, redis_client
):
    """celery-heimdall 1.0 starts 198 of 200 in a second, twice its limit over a slow line, and max_retries is None."""
    counts = {"ten_per_second": 40, "ten_per_ten": 20, "two_per_ten": 6, "one_per_half": 10}
    stamps, parkings = run(
        counts, celery_app_module, celery_worker_process, event_log, tcp_proxy, monkeypatch, redis_client
    )
    # Six calls at once, two in ten seconds.
    assert 10 < stamps["two_per_ten"][2] <= stamps["two_per_ten"][3] < 20
    assert 20 < stamps["two_per_ten"][4] <= stamps["two_per_ten"][5] < 30
    assert parkings <= 1.2
    eventually(lambda: not redis_client.keys("{heimdall*:v1:items"))


@pytest.mark.long
@pytest.mark.alone
def test_limits_are_kept_in_hardly_more_than_the_ideal_time(
    celery_app_module, celery_worker_process, event_log, tcp_proxy, monkeypatch, redis_client, record_property
):
    counts = {"ten_per_second": 200, "ten_per_ten": 40, "two_per_ten": 8, "one_per_half": 40}
    stamps, parkings = run(
        counts, celery_app_module, celery_worker_process, event_log, tcp_proxy, monkeypatch, redis_client
    )
    record_property("parkings_per_task", parkings)
    for name, (times, per) in LIMITS.items():
        ideal = (counts[name] / times - 1) * per
        record_property(f"seconds_{name}", (round(stamps[name][-1], 2), ideal))
    for name, (times, per) in LIMITS.items():
        ideal = (counts[name] / times - 1) * per
        assert stamps[name][-1] <= 1.1 * ideal, (name, stamps[name][-1], ideal)
    assert parkings <= 1.05
