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

    def send(code, **more):
        command = [sys.executable, "-c", f"import ranch_fair as fair\n{code}"]
        subprocess.run(command, env=environment | more, check=True)

    return send


def state_in_redis():
    """Our own state stays where the test looks for it, when neither broker nor results are in a Redis."""
    return {"RANCH_URL": os.environ["CELERY_RESULT_BACKEND"]}


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


def test_results_and_canvases_are_celerys_own_with_results_on_rabbitmq(fair, worker, balanced, send, rabbitmq_url):
    """The `rpc` backend answers to the caller's own queue: the message keeps its reply_to and correlation_id."""
    worker(concurrency=2, env={"CELERY_BROKER_URL": rabbitmq_url, "CELERY_RESULT_BACKEND": "rpc://"} | state_in_redis())
    send(
        "from celery import chain, group\n"
        "add = fair.add\n"
        "assert [add.lru_delay('a', n, 1).get(timeout=60) for n in range(3)] == [1, 2, 3]\n"
        "assert chain(add.s(1, 2).set(lru_key='a'), add.s(4).set(lru_key='b')).delay().get(timeout=60) == 7\n"
        "assert group(add.s(n, n).set(lru_key='a') for n in range(3)).delay().get(timeout=60) == [0, 2, 4]\n"
        "failed = fair.fail.lru_delay('a', 'no')\n"
        "assert str(failed.get(timeout=60, propagate=False)) == 'no' and failed.state == 'FAILURE'\n",
        CELERY_RESULT_BACKEND="rpc://",
        **state_in_redis(),
    )
    eventually(lambda: balanced(waiting=0, in_flight=0, submitted=9, done=9), timeout=60)


def test_canvases_and_options_work_on_rabbitmq(fair, worker, balanced, event_log, send, rabbitmq_url):
    worker(concurrency=2, env={"CELERY_BROKER_URL": rabbitmq_url})
    send(
        "from celery import chord\n"
        "header = [fair.add.s(n, n).set(lru_key=f'c{n}') for n in range(4)]\n"
        "assert chord(header, fair.total.s().set(lru_key='a')).delay().get(timeout=60) == 12\n"
        "fair.add.apply_async((1, 1), lru_key='a', link=fair.record.s())\n"
        "fair.fail.lru_apply_async('a', ('no',), link_error=fair.record_error.s())\n"
        "assert fair.add.apply_async((1, 2), lru_key='a', task_id='mine', countdown=1).get(timeout=60) == 3\n"
        "seen = fair.headers.apply_async(lru_key='a', headers={'trace': 't1'}).get(timeout=60)\n"
        "assert seen['trace'] == 't1'\n"
        "gone = fair.add.lru_apply_async('a', (1, 1), countdown=3)\n"
        "gone.revoke()\n"
        "assert 'revoked' in str(gone.get(timeout=60, propagate=False))\n"
    )
    event_log.wait_for(1, what="record", value="2")
    event_log.wait_for(1, what="record_error", value="no")
    eventually(lambda: balanced(waiting=0, in_flight=0, submitted=10, done=9, revoked=1), timeout=60)


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
