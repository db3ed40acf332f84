"""A crowd of waiting tasks: the worker's memory does not grow with it, and waking costs as much as among few."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest

from celery_heimdall import set_limit
from celery_toolkit_testkit import eventually

#: Mebibytes that a worker may gain between its first thousand parked tasks and the last.
MOST_GROWTH = 8.0


def mebibytes(worker):
    """Of the main process: that is where messages are received and parked."""
    status = Path(f"/proc/{worker.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def wake(app, client, event_log, count):
    """Let so many of the crowd be woken and run: how often the server ran each command, for each of them, and times.

    The times are the microseconds that the server spent on a script, and the seconds until the first body began.
    """
    before = len(event_log.events())
    client.config_resetstat()
    began = time.monotonic()
    set_limit("crowd", None, app=app)
    event_log.wait_for(before + 1, timeout=120.0)
    first = time.monotonic() - began
    event_log.wait_for(before + count, timeout=120.0)
    stats = client.info("commandstats")
    done = len(event_log.events()) - before
    set_limit("crowd", "paused", app=app)
    names = ("zadd", "zrem", "zrange", "hget", "hset", "hdel", "rpush")
    commands = Counter({name: stats.get(f"cmdstat_{name}", {}).get("calls", 0) / done for name in names})
    return commands, (stats["cmdstat_evalsha"]["usec_per_call"], round(first, 2))


def park_and_wake(count, celery_app_module, celery_worker_process, event_log, redis_client, record):
    app = celery_app_module("strained")
    set_limit("crowd", "paused", app=app.app)
    # A worker as in production: it takes messages in batches and writes no line for each.
    worker = celery_worker_process("strained", concurrency=4, loglevel="INFO")
    items = app.crowd.heimdall_store.parking[0]

    def park(number):
        with app.app.producer_pool.acquire(block=True) as producer:
            for place in range(number):
                app.crowd.apply_async((place,), producer=producer)
        eventually(lambda: redis_client.llen("celery") == 0, 600.0, interval=0.2)

    park(1000)
    eventually(lambda: redis_client.hlen(items) == 1000)
    among_few, times_among_few = wake(app.app, redis_client, event_log, 200)
    first = mebibytes(worker)
    park(count)
    eventually(lambda: redis_client.hlen(items) >= count, 60.0)
    grown = mebibytes(worker) - first
    among_many, times_among_many = wake(app.app, redis_client, event_log, 200)
    record("mebibytes_of_worker", round(first, 1))
    record("mebibytes_grown", round(grown, 1))
    record("times_of_waking", (times_among_few, times_among_many))
    assert grown < MOST_GROWTH
    # Each of these commands is O(log n) or better, so as many of them means O(log n).
    for name, calls in among_few.items():
        assert among_many[name] <= 1.5 * calls + 1, (name, among_few, among_many)


def test_five_thousand_parked_tasks(celery_app_module, celery_worker_process, event_log, redis_client, record_property):
    park_and_wake(5_000, celery_app_module, celery_worker_process, event_log, redis_client, record_property)


@pytest.mark.long
def test_a_hundred_thousand_parked_tasks(
    celery_app_module, celery_worker_process, event_log, redis_client, record_property
):
    park_and_wake(100_000, celery_app_module, celery_worker_process, event_log, redis_client, record_property)
