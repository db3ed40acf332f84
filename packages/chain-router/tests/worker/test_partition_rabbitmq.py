"""Partition mode with the messages on RabbitMQ and the leases in Redis."""

from __future__ import annotations

import json
import sys

import pytest
from celery.bin.celery import celery
from click.testing import CliRunner

from celery_toolkit_testkit import eventually

KEYS = [f"c{index}" for index in range(20)]


@pytest.fixture
def partition_app(celery_app_module, rabbitmq_url, monkeypatch):
    monkeypatch.setenv("CELERY_BROKER_URL", rabbitmq_url)
    return celery_app_module("partition_app")


@pytest.fixture
def start(celery_worker_process, rabbitmq_url):
    def start(name, **options):
        env = {"CELERY_BROKER_URL": rabbitmq_url}
        return celery_worker_process("partition_app", name=name, concurrency=2, env=env, **options)

    return start


def send(partition_app, numbers, seconds=0.0, **options):
    for number in numbers:
        partition_app.work.apply_async((number, KEYS[number % 20]), {"seconds": seconds}, **options)


def first_starts(event_log):
    """Number by number in the order of their first starts, by key."""
    found, seen = {}, set()
    for event in sorted(event_log.events(kind="start"), key=lambda event: event["at"]):
        if event["number"] not in seen:
            seen.add(event["number"])
            found.setdefault(event["key"], []).append(event["number"])
    return found


def test_a_join_a_warm_stop_and_a_kill_keep_the_order(partition_app, start, event_log):
    one = start("a")
    send(partition_app, range(100), seconds=0.01)
    two = start("b")
    event_log.wait_for(60, kind="done")
    one.stop()
    send(partition_app, range(100, 160), seconds=0.01)
    start("c")
    # Nothing yet that may run twice.
    starts = [event["number"] for event in event_log.events(kind="start")]
    assert len(starts) == len(set(starts))
    two.kill()
    eventually(lambda: {event["number"] for event in event_log.events(kind="done")} == set(range(160)))
    starts = [event["number"] for event in event_log.events(kind="start")]
    assert len(starts) - len(set(starts)) <= 2
    assert all(numbers == sorted(numbers) for numbers in first_starts(event_log).values())


def test_etas_go_back_to_the_queue_and_are_kept(partition_app, start, event_log):
    one, two = start("a"), start("b")
    eventually(lambda: len({event["pid"] for event in event_log.events(kind="assign")}) == 2)
    send(partition_app, range(20), countdown=10)
    eventually(lambda: one.log().count(" received") + two.log().count(" received") >= 20)
    assert one.log().count(" received")
    one.stop()
    done = event_log.wait_for(20, kind="done")
    assert {event["worker"] for event in done} == {"b"}
    assert len(event_log.events(kind="start")) == 20


def test_the_backlog_of_each_partition(partition_app, rabbitmq_url):
    send(partition_app, range(40))
    sys.modules.pop("partition_app", None)
    done = CliRunner().invoke(
        celery, ["-A", "partition_app", "chain-router", "partitions", "--json"], prog_name="celery"
    )
    rows = json.loads(done.stdout)
    assert sum(row["backlog"] for row in rows) == 40
    assert {row["unacked"] for row in rows} == {None}
