"""Partition mode with real workers: who runs what, one by one and in order."""

from __future__ import annotations

import pytest

from celery_toolkit_testkit import eventually

KEYS = [f"c{index}" for index in range(20)]


@pytest.fixture
def partition_app(celery_app_module):
    return celery_app_module("partition_app")


@pytest.fixture
def start(celery_worker_process):
    def start(*names: str, **options):
        options = {"concurrency": 2, "wait": False, **options}
        workers = [celery_worker_process("partition_app", name=name, **options) for name in names]
        for worker in workers:
            worker.wait_ready()
        return workers

    return start


def send(partition_app, numbers, **options) -> None:
    for number in numbers:
        partition_app.work.delay(number, KEYS[number % len(KEYS)], **options)


def test_workers_share_the_partitions_and_a_key_stays_with_one(partition_app, start, event_log):
    start("a", "b")
    send(partition_app, range(200), seconds=0.005)
    done = event_log.wait_for(200, kind="done")
    assert sorted(event["number"] for event in done) == list(range(200))
    assert {event["worker"] for event in done} == {"a", "b"}
