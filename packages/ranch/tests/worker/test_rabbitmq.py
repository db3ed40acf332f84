"""Tickets on RabbitMQ: ranch's own state stays in Redis, any broker carries tickets."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from celery_toolkit_testkit import eventually


@pytest.fixture
def send(rabbitmq_url):
    """Sends tasks from a process of its own, whose broker is RabbitMQ."""
    path = os.pathsep.join([str(Path(__file__).parent / "apps"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "CELERY_BROKER_URL": rabbitmq_url}

    def send(code):
        subprocess.run([sys.executable, "-c", f"import ranch_fair as fair\n{code}"], env=environment, check=True)

    return send


def all_done(balanced, count):
    return eventually(lambda: balanced(waiting=0, in_flight=0, scheduled=0, submitted=count, done=count), timeout=90)


def test_a_rabbitmq_broker_restarted_in_the_middle_loses_nothing(
    fair, worker, balanced, event_log, send, rabbitmq_server, rabbitmq_url
):
    send("for n in range(120): fair.slow.lru_delay(f'c{n % 4}', f't{n}', 0.05)")
    started = worker(concurrency=2, env={"CELERY_BROKER_URL": rabbitmq_url, "RANCH_LEASE": "3"})
    event_log.wait_for(20, what="end")
    rabbitmq_server.restart()
    send("for n in range(120, 150): fair.slow.lru_delay(f'c{n % 4}', f't{n}', 0.05)")
    all_done(balanced, 150)
    runs = Counter(each["text"] for each in event_log.events(what="end"))
    assert len(runs) == 150
    assert sum(runs.values()) - 150 <= 4
    assert started.is_running


def test_while_the_broker_is_away_the_backlog_keeps_the_task(
    fair, worker, balanced, event_log, send, rabbitmq_server, rabbitmq_url
):
    send("fair.note.lru_delay('a', 'before')")
    rabbitmq_server.kill()
    send("assert fair.note.lru_delay('a', 'meanwhile').id")
    rabbitmq_server.start()
    worker(concurrency=1, env={"CELERY_BROKER_URL": rabbitmq_url})
    event_log.wait_for(1, what="note", text="meanwhile")
    all_done(balanced, 2)


def test_retries_priorities_and_rejections_work_on_rabbitmq(fair, worker, balanced, event_log, send, rabbitmq_url):
    send(
        "for n in range(5): fair.stumble.lru_delay('a', 2)\n"
        "fair.refuse.lru_delay('b')\n"
        "fair.note.apply_async(('low',), lru_key='c', priority=1)\n"
        "fair.note.apply_async(('high',), lru_key='c', priority=8)"
    )
    worker(concurrency=1, env={"CELERY_BROKER_URL": rabbitmq_url})
    event_log.wait_for(15, what="stumble")
    event_log.wait_for(3, what="refuse")
    all_done(balanced, 18)
    assert [each["text"] for each in event_log.events(what="note")] == ["high", "low"]
