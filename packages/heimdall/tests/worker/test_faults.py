"""What may happen to workers and to our Redis while tasks run and wait; each fault is provoked for real."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from celery.bin.celery import celery
from click.testing import CliRunner

from celery_heimdall import set_limit
from celery_heimdall.waking import SUFFIX, Waker
from celery_toolkit_core.bound_process import start_bound
from celery_toolkit_core.connection import connect
from celery_toolkit_core.local_server import LocalServer
from celery_toolkit_testkit import eventually

CANARY = "canary-7f3a"
# It knows the task by name only.
BEATING = """
from celery import Celery
app = Celery("beating")
entry = {"task": "unique", "schedule": 0.3, "args": ["beat"], "kwargs": {"seconds": 1.5}}
app.conf.beat_schedule = {"entry": entry}
"""


@pytest.fixture
def own_redis(celery_environment, monkeypatch):
    """A server for our state alone, which a test may end."""
    with LocalServer() as server:
        monkeypatch.setenv("GUARDED_REDIS", server.url)
        yield server


def parked_states(app):
    store = app.gated.heimdall_store
    return sorted(json_state(text) for text in store.client.hvals(store.parking[0]))


def json_state(text):
    return text.split(b'"state":"')[1].split(b'"')[0].decode()


def test_killed_while_parked_while_waking_and_after_waking_each_task_runs_once(
    celery_app_module, celery_worker_process, event_log, redis_client
):
    app = celery_app_module("strained")
    set_limit("gate", "paused", app=app.app)
    first = celery_worker_process("strained")
    for number in range(12):
        app.gated.delay(number)
    eventually(lambda: parked_states(app) == ["parked"] * 12)
    first.kill()

    # The waker dies between its decision and the publish: four are on their way, and no message is.
    set_limit("gate", "4/s", app=app.app)
    dying = Waker(app.app)
    dying._publish = lambda *message: None
    eventually(lambda: (dying.look(app.gated.heimdall_store), parked_states(app).count("waking") == 4)[1])
    assert redis_client.llen(f"celery{SUFFIX}") == 0

    # The next worker takes woken ones in hand, behind a body that keeps its only process busy, and dies too.
    set_limit("gate", "12/s", app=app.app)
    second = celery_worker_process("strained", concurrency=1)
    app.unique.delay("busy", seconds=60.0)
    eventually(lambda: "entered" in parked_states(app) or len(event_log.events(what="begin", task="gated")) == 12)
    ran = len(event_log.events(what="begin", task="gated"))
    second.kill()
    celery_worker_process("strained")
    begun = event_log.wait_for(12, what="begin", task="gated")
    assert sorted(event["key"] for event in begun) == list(range(12)), ran
    eventually(lambda: parked_states(app) == [])


def test_a_hung_body_loses_its_lock_and_the_waiting_one_starts_with_a_higher_fence(
    celery_app_module, celery_worker_process, event_log
):
    app = celery_app_module("strained")
    worker = celery_worker_process("strained", concurrency=2)
    hung = app.hanging.delay("a", seconds=600.0)
    event_log.wait_for(1, what="begin")
    second = eventually(lambda: not (again := app.hanging.delay("a")).deduplicated and again)
    assert second.id != hung.id
    second.get(timeout=60)
    begun = event_log.events(what="begin")
    assert begun[1]["at"] - begun[0]["at"] > 1.9
    assert begun[1]["fence"] > begun[0]["fence"]
    worker.wait_for_log(f"lock_lost task=hanging task_id={hung.id}")
    worker.kill()


def test_scripts_flushed_and_redis_restarted_without_data_under_running_tasks(
    own_redis, celery_app_module, celery_worker_process, event_log
):
    app = celery_app_module("strained")
    worker = celery_worker_process("strained", concurrency=2)
    running = app.unique.delay("a", seconds=5.0)
    event_log.wait_for(1, what="begin")
    app.unique.heimdall_store.client.script_flush()
    assert app.unique.delay("b").get(timeout=60)
    assert "Traceback" not in worker.log()
    own_redis.kill()
    own_redis.start()
    worker.wait_for_log(f"lock_lost task=unique task_id={running.id}")
    assert running.get(timeout=60)
    after = [app.unique.delay("c"), *(app.two_in_two.delay(number) for number in range(4))]
    for result in after:
        assert result.get(timeout=60)
    assert "raised unexpected" not in worker.log()


def test_poisoned_bytes_are_put_aside_and_nobody_else_is_held_up(
    celery_app_module, celery_worker_process, event_log, redis_client
):
    """Bytes of a message, and of what we know of a waiting task."""
    app = celery_app_module("strained")
    store = app.gated.heimdall_store
    set_limit("gate", "paused", app=app.app)
    worker = celery_worker_process("strained")
    results = [app.gated.delay(number) for number in range(4)]
    eventually(lambda: parked_states(app) == ["parked"] * 4)
    redis_client.hset(store.parking[1], results[0].id, b"\xff\x00 no message")
    redis_client.hset(store.parking[0], results[1].id, b"{no item")
    set_limit("gate", "10/s", app=app.app)
    for result in results[2:]:
        result.get(timeout=60)
    for number in range(3):
        app.two_in_two.delay(number)
    event_log.wait_for(3, what="begin", task="two_in_two")
    eventually(lambda: redis_client.hkeys(store.space.key("quarantine")))
    assert set(redis_client.hkeys(store.space.key("quarantine"))) <= {each.id.encode() for each in results[:2]}
    worker.wait_for_log("task_quarantined")
    assert worker.is_running


def test_a_password_is_in_no_line_of_a_worker_or_a_command(
    own_redis, celery_app_module, celery_worker_process, event_log, tcp_proxy, monkeypatch
):
    proxy = tcp_proxy(own_redis.url)
    with_password = proxy.url.replace("redis://", f"redis://:{CANARY}@")
    monkeypatch.setenv("GUARDED_REDIS", with_password)
    app = celery_app_module("strained")
    with connect(own_redis.url) as guard:
        guard.config_set("requirepass", CANARY)
    worker = celery_worker_process("strained", loglevel="DEBUG")
    assert app.unique.delay("a").get(timeout=60)
    outputs = [CliRunner().invoke(celery, ["-A", "strained", "heimdall", "locks"]).output]
    with proxy.refusing():
        proxy.cut()
        app.app.send_task("unique", ("b",))
        worker.wait_for_log("A gate failed")
        outputs.append(CliRunner().invoke(celery, ["-A", "strained", "heimdall", "locks"]).output)
    assert "cannot be reached" in outputs[1]
    event_log.wait_for(1, what="end", key="b")
    with connect(with_password) as guard:
        guard.config_set("requirepass", "another")
    proxy.cut()
    app.app.send_task("unique", ("c",))
    worker.wait_for_log("refused the user or password", timeout=60.0)
    for text in (worker.log(), *outputs):
        assert CANARY not in text


@pytest.mark.parametrize("latency", [0.05, 0.5])
def test_over_a_very_slow_line_nothing_starts_twice_or_too_early(
    latency, celery_app_module, celery_worker_process, event_log, tcp_proxy, monkeypatch
):
    """Half of it each way."""
    proxy = tcp_proxy()
    monkeypatch.setenv("GUARDED_REDIS", proxy.url)
    app = celery_app_module("strained")
    celery_worker_process("strained", concurrency=4)
    proxy.latency = latency / 2
    first = app.unique.delay("a", seconds=4.0)
    # At once: what comes after its end would be no duplicate.
    app.app.send_task("unique", ("a",))
    assert app.unique.delay("a").id == first.id
    limited = [app.two_in_two.delay(number) for number in range(4)]
    for result in (first, *limited):
        result.get(timeout=60)
    stamps = sorted(event["stamp"] / 1e6 for event in event_log.events(what="begin", task="two_in_two"))
    assert stamps[2] - stamps[0] > 2.0
    assert stamps[3] - stamps[1] > 2.0
    assert len(event_log.events(what="begin", task="unique")) == 1


def test_what_the_visibility_timeout_delivers_again_does_not_run_beside_itself(
    celery_app_module, celery_worker_process, event_log
):
    """Peers run four at once: kombu hands out again what a late acknowledgement keeps for longer than that timeout."""
    app = celery_app_module("strained")
    workers = [celery_worker_process("strained", concurrency=2, wait=False) for _ in range(2)]
    for worker in workers:
        worker.wait_ready()
    task = app.unique_late.delay("a", seconds=4.0)
    event_log.wait_for(1, what="begin")
    with app.app.connection_for_read() as connection, connection.channel() as channel:
        channel.visibility_timeout = 1
        # What every worker does every ten seconds; the count of turns between two looks is kombu's too.
        eventually(lambda: (channel.qos.restore_visible(interval=1), not channel.client.zcard("unacked_index"))[1])
    eventually(lambda: sum(worker.log().count("task_parked") for worker in workers) == 1)
    task.get(timeout=60)
    eventually(lambda: sum(worker.log().count("copy_dropped") for worker in workers) >= 1)
    assert [event["what"] for event in event_log.events()] == ["begin", "end"]


def test_the_tasks_of_a_real_beat_never_overlap(celery_app_module, celery_worker_process, event_log, tmp_path):
    """It sends every 0.3 s what takes 1.5 s, past `apply_async`: what is too much is revoked, not run, not SUCCESS."""
    celery_app_module("strained")
    worker = celery_worker_process("strained", concurrency=4)
    (tmp_path / "beating.py").write_text(BEATING)
    command = [sys.executable, "-m", "celery", "-A", "beating", "beat", "-s", str(tmp_path / "schedule"), "--pidfile="]
    with (tmp_path / "beat.log").open("wb") as log:
        beat = start_bound(
            command, env={**os.environ, "PYTHONPATH": str(tmp_path)}, stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
        try:
            event_log.wait_for(3, what="end")
        finally:
            beat.kill()
            beat.wait()
    events = [event["what"] for event in event_log.events()]
    assert events[:6] == ["begin", "end"] * 3
    worker.wait_for_log("task_deduplicated", count=3)
