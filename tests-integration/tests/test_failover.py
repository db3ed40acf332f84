"""A failover in the middle: the sentinels promote the replica while tasks run, wait, and are sent."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import redis

from celery_toolkit_core.errors import RedisUnavailable
from celery_toolkit_core.local_server import LocalServer
from celery_toolkit_testkit import eventually
from celery_toolkit_testkit.sentinels import MASTER_NAME, sentinel_url, sentinels

PATIENCE = 90


@pytest.fixture
def replicated(monkeypatch):
    """A master, its replica, three sentinels; the master, and the port of one sentinel."""
    with ExitStack() as stack:
        master = stack.enter_context(LocalServer())
        replica = stack.enter_context(LocalServer(config={"replicaof": f"127.0.0.1 {master.port}"}))
        with redis.Redis(port=replica.port) as client:
            eventually(lambda: client.info("replication")["master_link_status"] == "up")
        ports = stack.enter_context(sentinels(master, count=3))
        monkeypatch.setenv("STATE_URL", sentinel_url(ports))
        with redis.Redis(port=ports[0]) as sentinel:
            eventually(lambda: sentinel.sentinel_master(MASTER_NAME)["num-slaves"] == 1, PATIENCE)
        yield master, replica, ports[0]


def insist(send):
    """Send until the new master takes it."""

    def attempt():
        try:
            return send()
        except RedisUnavailable:
            return None

    return eventually(attempt, PATIENCE, "the new master")


def test_what_was_accepted_before_a_failover_ends_after_it(
    replicated, celery_app_module, celery_worker_process, event_log
):
    master, replica, sentinel_port = replicated
    single = celery_app_module("failover_app").single
    worker = celery_worker_process("failover_app", concurrency=2)
    results = [single.apply_async((f"long {n}", 8.0), lru_key="alice") for n in range(2)]
    event_log.wait_for(2, what="start")
    results += [single.apply_async((f"short {n}",), lru_key=f"client {n % 3}") for n in range(10)]
    # A failover forgets what no replica has; here it is to forget nothing.
    with redis.Redis(port=master.port) as client:
        assert client.wait(1, 10_000) == 1
    master.kill()
    with redis.Redis(port=sentinel_port) as sentinel:
        eventually(lambda: int(sentinel.sentinel_master(MASTER_NAME)["port"]) == replica.port, PATIENCE)

    duplicate = insist(lambda: single.apply_async(("long 0", 8.0), lru_key="alice"))
    results += [insist(lambda n=n: single.apply_async((f"late {n}",), lru_key="bob")) for n in range(3)]

    assert [result.get(timeout=PATIENCE) for result in results] == [
        *(f"long {n}" for n in range(2)), *(f"short {n}" for n in range(10)), *(f"late {n}" for n in range(3))
    ]  # fmt: skip
    assert duplicate.get(timeout=PATIENCE) == "long 0"
    ended = [event["id"] for event in event_log.events(what="end")]
    assert len(ended) == len(set(ended))
    assert worker.is_running
