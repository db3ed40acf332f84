"""Kills and crowds: nothing is lost, and without a kill nothing runs twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from celery import chain

from celery_ranch import audit
from celery_toolkit_testkit import eventually, frozen

QUICK = {"RANCH_LEASE": "2"}


def settled(balanced, **expected):
    return eventually(lambda: balanced(waiting=0, in_flight=0, scheduled=0, **expected), timeout=90)


@pytest.fixture
def submit_from_processes(celery_environment):
    """`number` producers, each a process of its own, send `each` tasks at the same time; they end with the test."""
    started = []

    def submit(number, each):
        code = (
            "import sys, ranch_fair; who = sys.argv[1]\n"
            "for n in range(int(sys.argv[2])): ranch_fair.note.lru_delay(f'c{n % 7}', f'{who}-{n}')"
        )
        path = os.pathsep.join([str(Path(__file__).parent / "apps"), os.environ.get("PYTHONPATH", "")])
        for index in range(number):
            command = [sys.executable, "-c", code, f"p{index}", str(each)]
            started.append(subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}))
        return started

    yield submit
    for each in started:
        each.kill()
        each.wait()


def test_without_faults_nothing_is_lost_and_nothing_runs_twice(
    fair, worker, balanced, event_log, submit_from_processes
):
    """celery-ranch 0.1.1 lost 211 and ran 153 twice, of 400."""
    workers = [worker(concurrency=2, loglevel="INFO", wait=False) for _ in range(4)]
    producers = submit_from_processes(4, 500)
    assert [each.wait(timeout=120) for each in producers] == [0] * 4
    event_log.wait_for(2000, timeout=150, what="note")
    settled(balanced, submitted=2000, done=2000)
    runs = Counter(each["text"] for each in event_log.events(what="note"))
    assert len(runs) == 2000
    assert set(runs.values()) == {1}
    assert all(each.is_running for each in workers)


def test_kill_9_of_workers_and_children_loses_nothing(fair, worker, balanced, event_log):
    """Late acknowledgement: a task runs again only if it was in flight at a kill."""
    chance = random.Random(4)
    for number in range(200):
        fair.slow.lru_delay(f"c{number % 5}", f"t{number}", 0.02)
    workers = [worker(concurrency=2, env=QUICK) for _ in range(2)]
    in_flight = 0
    for kill in range(6):
        event_log.wait_for((kill + 1) * 30, what="start")
        victim = workers.pop(chance.randrange(2))
        if kill % 2:
            victim.kill()
            in_flight += 4
            workers.append(worker(concurrency=2, env=QUICK))
        else:
            for pid in victim.child_pids()[:1]:
                os.kill(pid, signal.SIGKILL)
            in_flight += 1
            workers.append(victim)
    done = eventually(
        lambda: (found := {each["text"] for each in event_log.events(what="end")}) and len(found) == 200 and found,
        timeout=120,
    )
    assert len(done) == 200
    settled(balanced, submitted=200, dead=0)
    runs = Counter(each["text"] for each in event_log.events(what="start"))
    assert sum(runs.values()) - 200 <= in_flight


def test_a_task_that_kills_every_worker_ends_dead_and_says_so(fair, worker, balanced):
    result = fair.slow.lru_delay("a", "poison", 120)
    for _ in range(2):
        victim = worker(concurrency=1, env={**QUICK, "RANCH_ATTEMPTS": "2"})
        victim.wait_for_log("received")
        eventually(lambda: balanced(in_flight=1), timeout=60)
        victim.kill()
    worker(concurrency=1, env={**QUICK, "RANCH_ATTEMPTS": "2"})
    with pytest.raises(Exception, match="lost with its worker 2 times"):
        result.get(timeout=60)
    assert balanced(dead=1, in_flight=0)


def test_a_killed_child_gives_its_task_back(fair, worker, balanced, tmp_path):
    worker(concurrency=1)
    assert fair.die_once.lru_delay("a", str(tmp_path / "died")).get(timeout=60) == "alive"
    settled(balanced, done=1)


def test_a_task_that_kills_each_of_its_processes_ends_dead_and_the_worker_lives(fair, worker, balanced, event_log):
    """With `task_reject_on_worker_lost` plain Celery would run it for ever."""
    deadly, other = fair.die.lru_delay("a"), fair.add.lru_delay("a", 1, 2)
    started = worker(concurrency=1)
    with pytest.raises(Exception, match="lost with its worker 3 times"):
        deadly.get(timeout=60)
    assert other.get(timeout=60) == 3
    settled(balanced, submitted=2, done=1, dead=1)
    assert len(event_log.events(what="die")) == 3
    assert started.is_running


@pytest.mark.parametrize("acks_late", ["0", "1"])
def test_a_warm_shutdown_hands_back_what_has_not_begun(fair, worker, balanced, event_log, acks_late):
    for number in range(8):
        fair.slow.lru_delay("a", f"t{number}", 1.0)
    first = worker(concurrency=1, env={"ACKS_LATE": acks_late})
    event_log.wait_for(1, what="start")
    assert first.stop() == 0
    assert balanced(in_flight=0)
    worker(concurrency=4, env={"ACKS_LATE": acks_late})
    event_log.wait_for(8, what="end")
    settled(balanced, submitted=8, done=8)
    runs = Counter(each["text"] for each in event_log.events(what="start"))
    assert runs == Counter({f"t{number}": 1 for number in range(8)})


def test_an_early_acknowledged_body_is_not_repeated_after_a_kill(fair, worker, balanced, event_log):
    environment = {**QUICK, "ACKS_LATE": "0"}
    fair.slow.lru_delay("a", "once", 120)
    first = worker(concurrency=1, env=environment)
    event_log.wait_for(1, what="start")
    eventually(lambda: b"started" in b"".join(_entries(fair)), timeout=30)
    first.kill()
    worker(concurrency=1, env=environment)
    settled(balanced, abandoned=1)
    assert len(event_log.events(what="start")) == 1


def _entries(fair):
    from celery_ranch.application import ranch_of

    backlog = ranch_of(fair.app).backlog
    return backlog.client.hvals(backlog.keys[0])


def test_flushed_scripts_and_cut_connections_lose_nothing(
    fair, worker, balanced, event_log, redis_client, cut_connections
):
    """SCRIPT FLUSH and CLIENT KILL again and again; the broker is on the same server."""
    for number in range(300):
        fair.slow.lru_delay(f"c{number % 5}", f"t{number}", 0.03)
        if number % 10 == 0:
            redis_client.script_flush()
    workers = [worker(concurrency=2, env=QUICK, wait=False) for _ in range(2)]
    rounds = 0
    while len(event_log.events(what="end")) < 250 and rounds < 40:
        seen = len(event_log.events(what="end"))
        redis_client.script_flush()
        if rounds % 3 == 0:
            cut_connections()
        rounds += 1
        eventually(lambda seen=seen: len(event_log.events(what="end")) > seen, timeout=60)
    settled(balanced, submitted=300, done=300, dead=0)
    ends = Counter(each["text"] for each in event_log.events(what="end"))
    assert len(ends) == 300
    assert rounds > 3
    assert all(each.is_running for each in workers)


def test_a_frozen_workers_late_report_changes_nothing(fair, worker, balanced, event_log):
    fair.slow.lru_delay("a", "t", 0.5)
    first = worker(concurrency=1, env=QUICK, pool="solo")
    event_log.wait_for(1, what="start")
    with frozen(first.pid):
        worker(concurrency=1, env=QUICK)
        event_log.wait_for(1, what="end")
        settled(balanced, submitted=1, done=1)
    event_log.wait_for(2, what="end")
    settled(balanced, submitted=1, done=1)
    first.wait_for_log("reports_too_late")


def test_map_starmap_and_chunks_are_celerys_own_tasks(fair, worker, balanced):
    worker(concurrency=1)
    assert fair.add.starmap([(1, 1), (2, 2)]).apply_async().get(timeout=60) == [2, 4]
    assert fair.add.chunks([(1, 1), (2, 2)], 1).apply_async().get(timeout=60) == [[2], [4]]
    assert balanced(submitted=0)


def test_after_an_outage_of_the_broker_no_more_tickets_come_than_tasks(
    celery_app_module, celery_worker_process, event_log, tcp_proxy, redis_client, redis_url, monkeypatch
):
    """A worker that cannot reach its broker finds nothing, beside work whose tickets are there and well."""
    monkeypatch.setenv("RANCH_URL", redis_url)
    app = celery_app_module("ranch_apart")
    proxy = tcp_proxy()
    process = celery_worker_process("ranch_apart", env={"CELERY_BROKER_URL": proxy.url}, concurrency=1)

    def scripts():
        # The periodic care runs once a second, and hardly anything else in a worker without work.
        return redis_client.info("commandstats")["cmdstat_evalsha"]["calls"]

    with proxy.refusing():
        proxy.cut()
        process.wait_for_log("Cannot connect")
        redis_client.config_resetstat()
        for number in range(20):
            app.work.lru_apply_async(f"c{number % 3}", (f"t{number}",), ignore_result=True)
        sent = scripts()
        eventually(lambda: scripts() >= sent + 4, timeout=60)
    event_log.wait_for(20, what="end")
    eventually(lambda: audit(app.app)["done"] == 20)
    assert proxy.commands["LPUSH"] == 0  # the worker has sent none


@pytest.fixture
def apart(celery_app_module, celery_worker_process, tcp_proxy, redis_url, monkeypatch):
    """The application, a worker of it, and the proxy through which only that one reaches the backlog."""
    proxy = tcp_proxy()
    monkeypatch.setenv("RANCH_URL", redis_url)
    app = celery_app_module("ranch_apart")
    return app, celery_worker_process("ranch_apart", env={"RANCH_URL": proxy.url}, concurrency=1), proxy


def test_a_retry_that_cannot_be_sent_is_no_lost_task(apart, event_log, tmp_path):
    """Celery rejects the task's message then, and with it goes what was acknowledged late."""
    app, process, proxy = apart
    result = app.stumble.lru_delay("alice", str(tmp_path / "go on"))
    event_log.wait_for(1, what="start")
    with proxy.refusing():
        proxy.cut()
        (tmp_path / "go on").touch()
        process.wait_for_log("reject requeue=True")
    assert result.get(timeout=60) == 1
    assert [event["retries"] for event in event_log.events(what="start")] == [0, 0, 1]
    eventually(lambda: (audit(app.app)["waiting"], audit(app.app)["in_flight"]) == (0, 0))


def test_the_next_step_of_a_chain_outlasts_an_outage(apart, event_log, tmp_path):
    """Celery sends it when the body has done its work: an error would fail that task and end the chain."""
    app, process, proxy = apart
    path = tmp_path / "go on"
    first, second = app.hold.si("first", str(path)), app.hold.si("second", str(path))
    result = chain(each.set(lru_key="alice") for each in (first, second))()
    event_log.wait_for(1, what="start")
    with proxy.refusing():
        proxy.cut()
        path.touch()
        process.wait_for_log("sending_waits_for_redis")
    assert result.get(timeout=60) == "second"
    assert result.parent.state == "SUCCESS"
