"""What a worker does beside the main road: waiting until a task is due, drains, metrics, signals, warnings."""

from __future__ import annotations

import socket
from contextlib import suppress
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from celery_ranch import ClientDraining, Clients, audit
from celery_ranch.application import ranch_of
from celery_toolkit_testkit import eventually


def test_a_countdown_of_a_task_sent_by_name_waits_in_redis_and_survives_its_worker(fair, worker, balanced, event_log):
    """It meets the gate in the worker; kept there it would raise the prefetch count and die with the process."""
    first = worker(concurrency=1)
    result = fair.app.send_task("ranch_fair.add", (1, 2), headers={"ranch_key": "a"}, countdown=3600)
    eventually(lambda: balanced(submitted=1, scheduled=1, in_flight=0), timeout=60)
    seen = eventually(lambda: fair.app.control.inspect(timeout=5).scheduled(), timeout=60)
    assert seen == {first.name: []}
    first.kill()
    assert balanced(scheduled=1, done=0)
    backlog = ranch_of(fair.app).backlog
    (entry,) = backlog.client.zrange(backlog.key("scheduled"), 0, -1)
    backlog.client.zadd(backlog.key("scheduled"), {entry: 1})  # its hour is over
    worker(concurrency=1)
    assert result.get(timeout=60) == 3
    eventually(lambda: balanced(submitted=1, done=1), timeout=30)


def test_a_drained_client_finishes_what_its_bodies_send(fair, worker, balanced, event_log):
    fair.parent.lru_delay("family", "child")
    clients = Clients(fair.app)
    assert clients.drain("family") == 1
    with pytest.raises(ClientDraining):
        fair.parent.lru_delay("family", "another")
    worker(concurrency=1)
    event_log.wait_for(1, what="note", text="child")
    assert clients.drain("family", wait=60) == 0
    assert balanced(submitted=2, done=2)


def test_a_worker_serves_metrics_and_sends_signals(fair, worker, event_log):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    first = worker(concurrency=1, env={"RANCH_METRICS_PORT": str(port), "RANCH_SIGNALS": "1"})
    fair.note.lru_delay("alice", "hello")
    event_log.wait_for(1, what="settled", lru_key="alice", outcome="done")

    def scraped():
        with suppress(URLError), urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return answer.read().decode()
        return ""

    text = eventually(lambda: (text := scraped()) and 'ranch_tasks_ended_total{how="done"} 1.0' in text and text)
    assert 'ranch_backlog{queue="celery"} 0.0' in text
    assert 'ranch_wait_seconds_count{queue="celery"} 1.0' in text
    assert "alice" not in text
    (claimed,) = event_log.events(what="claimed")
    assert claimed["waited"] >= 0
    second = worker(concurrency=1, env={"RANCH_METRICS_PORT": str(port)})
    second.wait_for_log("metrics_port_taken")
    assert (first.stop(), second.stop()) == (0, 0)


def test_a_worker_warns_of_a_misspelt_setting_and_says_where_the_backlog_is(worker):
    started = worker(concurrency=1, env={"RANCH_TYPO": "1"})
    started.wait_for_log("unknown_setting setting=ranch_leese did_you_mean=ranch_lease")
    started.wait_for_log("ranch_ready redis=")
    assert started.log().count("unknown_setting") == 1


def test_a_dropped_child_of_a_full_client_does_not_fail_its_parent(fair, worker, balanced, event_log):
    Clients(fair.app).set_max_backlog("full", 1)
    fair.scatter.lru_delay("full", 3)
    worker(concurrency=1)
    event_log.wait_for(1, what="scattered")
    states = event_log.events(what="scattered")[0]["states"]
    assert states == ["PENDING", "REVOKED", "REVOKED"]
    eventually(lambda: balanced(submitted=2, done=2), timeout=60)


def test_a_weight_function_that_gives_no_weight_is_counted_and_the_static_one_stands(fair, worker, event_log):
    """It raises, or returns NaN, 0 or less, or no number: the task runs, the log has it once."""
    labels = ["broken", *fair.NO_WEIGHTS]
    for label in labels:
        fair.weighed.lru_delay(label, label, priority_weight=2.0)
    started = worker(concurrency=1)
    eventually(lambda: audit(fair.app)["weight_failures"] == len(labels), timeout=60)
    event_log.wait_for(len(labels), what="weighed")
    assert {Clients(fair.app).show(label)["weight_by_function"] for label in labels} == {2.0}
    assert started.log().count("weight_function_failed") == 1


def test_a_weight_function_is_told_what_is_known_of_the_client_just_served(fair, worker, event_log):
    fair.weighed.lru_delay("a", 1, priority_weight=0.5, tags={"tier": "gold"})
    fair.weighed.lru_delay("a", 2)
    fair.weighed.lru_delay("b", 3)
    worker(concurrency=1)
    event_log.wait_for(3, what="weighed")
    first, other, second = event_log.events(what="asked")
    assert (first["key"], first["before"], first["weight"], first["tags"]) == ("a", 0.0, 0.5, {"tier": "gold"})
    assert (other["key"], other["before"], other["weight"], other["tags"]) == ("b", 0.0, 1.0, None)
    assert (second["key"], second["weight"], second["before"] > 0) == ("a", 0.5, True)
