"""Workers that end, freeze or lose the sight of a server: what they had claimed is neither lost nor run twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from celery import Celery

from celery_ranch import audit, lru_task
from celery_ranch.application import ranch_of
from celery_toolkit_core.connection import connect
from celery_toolkit_core.errors import RedisFull, RedisUnavailable
from celery_toolkit_core.local_server import LocalServer
from celery_toolkit_testkit import TcpProxy, eventually

APPS = Path(__file__).parent / "apps"


@pytest.fixture
def apart(celery_app_module):
    """Imports the application when the environment of the test is complete."""

    def load():
        return celery_app_module("ranch_apart")

    return load


@pytest.fixture
def worker(celery_worker_process):
    def start(**options):
        return celery_worker_process("ranch_apart", **options)

    return start


@pytest.fixture
def own_redis(monkeypatch):
    """A server for the backlog alone, behind a proxy; the broker and the results are elsewhere."""
    with LocalServer() as server, TcpProxy(server.url) as proxy:
        monkeypatch.setenv("RANCH_URL", proxy.url)
        yield server, proxy


def settled(app, **expected):
    def check():
        seen = audit(app)
        assert seen["missing"] == 0
        assert {name: seen[name] for name in expected} == expected
        return seen["waiting"] == seen["in_flight"] == seen["scheduled"] == 0

    return eventually(check, timeout=90)


def starts(event_log):
    return Counter(each["text"] for each in event_log.events(what="start"))


def run(code):
    """A producer in a process of its own."""
    path = os.pathsep.join([str(APPS), os.environ.get("PYTHONPATH", "")])
    return subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, check=False).returncode


def test_a_producer_killed_between_backlog_and_ticket_has_sent_its_task(apart, worker, event_log):
    """The missing ticket is issued by a worker that has nothing to do."""
    code = (
        "import os, signal, ranch_apart\n"
        "from celery_ranch.application import Ranch\n"
        "Ranch.publish_ticket = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)\n"
        "ranch_apart.work.lru_delay('a', 'orphan')"
    )
    assert run(code) == -signal.SIGKILL
    app = apart().app
    assert app.connection_for_read().default_channel._size("celery") == 0
    worker(concurrency=1)
    event_log.wait_for(1, what="end", text="orphan")
    settled(app, submitted=1, done=1)


def test_producers_may_fork(apart, worker, event_log):
    """No socket is shared over a fork: five processes send at the same time after one of them had sent already."""
    code = (
        "import os, ranch_apart\n"
        "ranch_apart.work.lru_delay('parent', 'first')\n"
        "children = [pid for n in range(4) if (pid := os.fork()) or (\n"
        "    [ranch_apart.work.lru_delay(f'c{n}', f'{n}-{i}') for i in range(25)], os._exit(0))]\n"
        "for i in range(25): ranch_apart.work.lru_delay('parent', f'p-{i}')\n"
        "assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4\n"
    )
    assert run(code) == 0
    worker(concurrency=2)
    event_log.wait_for(126, what="end")
    settled(apart().app, submitted=126, done=126)
    assert set(starts(event_log).values()) == {1}


def test_nothing_is_published_a_second_time(apart, worker, event_log):
    """Promise 7: what runs are the bytes built at submit; a worker sends no task in order to run it."""
    tasks = apart()
    results = [tasks.work.lru_delay(f"c{number % 2}", f"t{number}") for number in range(6)]
    worker(concurrency=2)
    assert [result.get(timeout=60) for result in results] == [f"t{number}" for number in range(6)]
    assert {each["pid"] for each in event_log.events(what="published")} == {os.getpid()}
    assert len(event_log.events(what="published")) == 6


@pytest.mark.parametrize("acks_late", ["1", "0"])
def test_a_cold_shutdown_loses_nothing_that_had_not_begun(apart, worker, event_log, acks_late):
    """Late acknowledgement: what ran, runs again. Early: Celery's own contract, a body that had begun is gone."""
    tasks = apart()
    for number in range(6):
        tasks.work.lru_delay("a", f"t{number}", 5.0 if number < 2 else 0.0)
    first = worker(concurrency=2, env={"ACKS_LATE": acks_late, "RANCH_LEASE": "3"})
    event_log.wait_for(2, what="start")
    first.send(signal.SIGQUIT)
    first.wait()
    worker(concurrency=2, env={"ACKS_LATE": acks_late, "RANCH_LEASE": "3"})
    seen = settled(tasks.app, submitted=6) and audit(tasks.app)
    again = 2 if acks_late == "1" else 1
    assert starts(event_log) == {f"t{number}": again if number < 2 else 1 for number in range(6)}
    assert seen["done"] + seen["revoked"] + seen["abandoned"] == 6
    assert seen["done"] == 6 or acks_late == "0"


def test_a_soft_shutdown_lets_bodies_end_and_hands_back_the_rest(apart, worker, event_log):
    tasks = apart()
    for number in range(6):
        tasks.work.lru_delay("a", f"t{number}", 0.5)
    first = worker(concurrency=2, env={"SOFT_SHUTDOWN": "6"})  # all of which Celery waits
    event_log.wait_for(2, what="start")
    first.send(signal.SIGQUIT)
    first.wait()
    begun = starts(event_log)
    assert len(event_log.events(what="end")) == sum(begun.values())
    assert audit(tasks.app)["in_flight"] == 0
    worker(concurrency=2)
    event_log.wait_for(6, what="end")
    settled(tasks.app, submitted=6, done=6)
    assert starts(event_log) == {f"t{number}": 1 for number in range(6)}


def test_a_ticket_delivered_again_while_its_task_runs_is_a_no_op(apart, worker, event_log, tmp_path):
    """A broker may deliver anything twice: the same ticket comes once more while its task runs."""
    tasks = apart()
    long = tasks.hold.lru_delay("a", "long", str(tmp_path / "go"))
    out = tasks.app.connection_for_read().default_channel.client
    (ticket,) = out.lrange("celery", 0, -1)
    environment = {"RANCH_LEASE": "3"}
    first = worker(concurrency=1, env=environment)
    (begun,) = event_log.wait_for(1, what="start")
    out.lpush("celery", ticket)
    second = worker(concurrency=1, env=environment)
    # The first has its hands full, so the second gets the ticket; it is refused, and acknowledges it.
    eventually(lambda: not out.llen("celery"), timeout=60)
    assert tasks.work.lru_delay("b", "other").get(timeout=60) == "other"
    (tmp_path / "go").touch()
    assert long.get(timeout=60) == "long"
    settled(tasks.app, submitted=2, done=2)
    assert starts(event_log) == {"long": 1, "other": 1}
    assert begun["pid"] in first.child_pids()
    assert second.is_running


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo", "gevent"])
def test_a_body_longer_than_its_lease_keeps_it_in_every_pool(apart, worker, event_log, pool):
    """Another worker sweeps all the while; it finds nothing to take back."""
    tasks = apart()
    long = tasks.work.lru_delay("a", "long", 9.0)
    first = worker(concurrency=1, pool=pool, env={"RANCH_LEASE": "3"})
    event_log.wait_for(1, what="start")
    second = worker(concurrency=1, env={"RANCH_LEASE": "3"})
    assert long.get(timeout=60) == "long"
    settled(tasks.app, submitted=1, done=1)
    assert starts(event_log) == {"long": 1}
    assert "claims_ended_with_their_worker" not in first.log() + second.log()


def test_a_wrong_clock_neither_ends_leases_nor_hurries_anybody(apart, worker, event_log, tmp_path):
    """One worker is an hour ahead, one an hour behind: leases, sweeps and due times are by the clock of Redis."""
    tasks = apart()
    long = tasks.hold.lru_delay("a", "long", str(tmp_path / "go"))
    later = tasks.work.lru_apply_async("b", ("later",), countdown=3000)
    first = worker(concurrency=1, env={"CLOCK_SKEW": "3600", "RANCH_LEASE": "2"})
    event_log.wait_for(1, what="start")
    second = worker(concurrency=1, env={"CLOCK_SKEW": "-3600", "RANCH_LEASE": "2"})
    backlog = ranch_of(tasks.app).backlog
    ends = backlog.client.zrange(backlog.key("inflight"), 0, -1, withscores=True)[0][1]
    # Renewed twice beyond its first lease, under the eyes of the other worker's care.
    eventually(lambda: backlog.client.zrange(backlog.key("inflight"), 0, -1, withscores=True)[0][1] > ends + 4000)
    results = [tasks.work.lru_delay(f"c{number % 2}", f"t{number}") for number in range(6)]
    assert [result.get(timeout=60) for result in results] == [f"t{number}" for number in range(6)]
    (tmp_path / "go").touch()
    assert long.get(timeout=60) == "long"
    assert audit(tasks.app)["scheduled"] == 1
    assert later.state == "PENDING"
    assert starts(event_log) == {"long": 1, **{f"t{number}": 1 for number in range(6)}}
    assert first.is_running
    assert second.is_running


def test_latency_neither_loses_nor_repeats(apart, worker, event_log, tcp_proxy, monkeypatch):
    """The broker, the backlog and the results behind 5, 50 and 500 ms, with leases short enough to matter."""
    proxy = tcp_proxy()
    for name in ("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"):
        monkeypatch.setenv(name, proxy.url)
    module = apart()
    workers = [worker(concurrency=2, env={"RANCH_LEASE": "6"}, wait=False) for _ in range(2)]
    for each in workers:
        each.wait_ready()
    sent = 0
    for milliseconds, tasks in ((5, 60), (50, 24), (500, 6)):
        proxy.latency = milliseconds / 1000
        for number in range(sent, sent + tasks):
            module.work.lru_apply_async(f"c{number % 3}", (f"t{number}", 0.05), ignore_result=True)
        sent += tasks
        event_log.wait_for(sent, what="end", timeout=120)
    settled(module.app, submitted=sent, done=sent)
    assert starts(event_log) == {f"t{number}": 1 for number in range(sent)}
    assert all(each.is_running for each in workers)
    proxy.latency = 0.0


def test_our_redis_away_during_a_run_costs_no_result(apart, worker, own_redis, event_log):
    """The result is the caller's at once; the task is settled when Redis is back, and nothing runs twice."""
    tasks = apart()
    _, proxy = own_redis
    running = [tasks.work.lru_delay("a", f"t{number}", 1.0) for number in range(2)]
    started = worker(concurrency=2)
    event_log.wait_for(2, what="start")
    with proxy.refusing():
        proxy.cut()
        assert [result.get(timeout=60) for result in running] == ["t0", "t1"]
        with pytest.raises(RedisUnavailable):
            tasks.work.lru_delay("a", "refused")
    assert tasks.work.lru_delay("a", "after").get(timeout=60) == "after"
    settled(tasks.app, submitted=3, done=3)
    assert starts(event_log) == {"t0": 1, "t1": 1, "after": 1}
    assert started.is_running


def test_a_redis_that_loses_its_data_leaves_surplus_tickets_that_do_nothing(apart, worker, own_redis, event_log):
    """Without data there is no backlog: documented. But workers live on, running bodies end, new tasks run."""
    tasks = apart()
    server, _ = own_redis
    running = tasks.work.lru_delay("a", "running", 1.0)
    for number in range(10):
        tasks.work.lru_delay("b", f"lost{number}")
    started = worker(concurrency=1)
    event_log.wait_for(1, what="start")
    server.stop()
    server.start()
    assert running.get(timeout=60) == "running"
    assert tasks.work.lru_delay("a", "new").get(timeout=60) == "new"
    settled(tasks.app, done=1, submitted=1)
    assert started.is_running


def test_a_full_redis_refuses_new_tasks_and_settles_the_others(apart, worker, own_redis, event_log):
    tasks = apart()
    server, _ = own_redis
    waiting = [tasks.work.lru_delay("a", f"t{number}", 0.2) for number in range(6)]
    worker(concurrency=2)
    event_log.wait_for(1, what="start")
    with connect(server.url) as client:
        client.config_set("maxmemory", 1)
        with pytest.raises(RedisFull):
            tasks.work.lru_delay("a", "refused")
        assert [result.get(timeout=60) for result in waiting] == [f"t{number}" for number in range(6)]
        settled(tasks.app, submitted=6, done=6)
        client.config_set("maxmemory", 0)
    assert tasks.work.lru_delay("a", "after").get(timeout=60) == "after"
    assert set(starts(event_log).values()) == {1}


def test_tasks_of_a_process_that_does_not_work_for_the_broker_are_not_kept_in_memory(own_redis):
    """A producer without our Redis gets its error in time, and nothing waits inside it for better times."""
    server, _ = own_redis
    app = Celery("memory", broker="memory://", set_as_current=False)
    app.conf.ranch_redis_url = server.url

    @lru_task(app, shared=False, name="memory.task")
    def task():
        pass

    server.stop()
    with pytest.raises(RedisUnavailable):
        task.lru_delay("a")
    server.start()
    assert audit(app)["submitted"] == 0
    ranch_of(app).backlog.client.close()
    app.close()
