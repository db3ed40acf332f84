"""Locks that a failover must not forget: ``heimdall_min_replicas``, with a real replica."""

from __future__ import annotations

import os
import signal

import pytest
from celery import Celery

from celery_heimdall import HeimdallTask, RateLimit
from celery_heimdall.calls import Call
from celery_heimdall.claims import Claim
from celery_heimdall.errors import TooFewReplicas
from celery_heimdall.inspection import locks
from celery_heimdall.store import Store, settings_of
from celery_toolkit_core.errors import InvalidParameter
from celery_toolkit_testkit import eventually


@pytest.fixture
def task(replicated_pair):
    app = Celery("replicated", broker="memory://", set_as_current=False)
    app.conf.update(heimdall_redis_url=replicated_pair[0].url, heimdall_min_replicas=1)

    @app.task(base=HeimdallTask, name="task", shared=False, heimdall={"unique": True}, limits=[RateLimit("5/h")])
    def task(value=None):
        return None

    app.finalize()
    yield app.tasks["task"]
    app.close()


def enter(task, token):
    claim = Claim(task, Call(task, ("b",)), None, "b", 0, f"b/{token}")
    return claim.enter(woken=False, queue="q", message=b"m", later=False, join=False, holder="")[0]


def test_a_lock_that_no_replica_has_is_refused_and_leaves_nothing(replicated_pair, task):
    first = task.delay("a")
    os.kill(replicated_pair[1].pid, signal.SIGSTOP)
    try:
        with pytest.raises(TooFewReplicas, match="0 of 1 replicas") as caught:
            task.delay("b")
        assert (caught.value.wanted, caught.value.found) == (1, 0)
        with pytest.raises(TooFewReplicas):
            enter(task, 1)
        # The one that was received keeps its place, not the right to run: its message comes again.
        states = {row["holder"]: row["state"] for row in locks(task.heimdall_store)}
        assert states == {first.id: "queued", "b": "queued"}
    finally:
        os.kill(replicated_pair[1].pid, signal.SIGCONT)
    assert eventually(lambda: enter(task, 2)) == "run"
    assert task.delay("c").deduplicated is False


def test_where_waiting_for_replicas_is_not_to_be_had_it_is_refused(task):
    class Cluster:
        nodes_manager = None

    with pytest.raises(InvalidParameter, match="min-replicas-to-write"):
        Store(Cluster(), settings_of(task.app))
