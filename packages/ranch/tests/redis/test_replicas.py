"""What a failover to a replica that is behind may forget, and `ranch_min_replicas`, with a real replica."""

from __future__ import annotations

from uuid import uuid4

import pytest
from celery import Celery

from celery_ranch import TooFewReplicas, audit, lru_task
from celery_ranch.application import ranch_of
from celery_ranch.backlog import Backlog
from celery_ranch.entries import Report
from celery_toolkit_core.connection import connect
from celery_toolkit_core.errors import InvalidParameter
from celery_toolkit_core.keys import KeySpace
from celery_toolkit_testkit import eventually, frozen

pytestmark = pytest.mark.not_on("cluster", "unix", "tls", "sentinel", "acl", reason="it has servers of its own")


@pytest.fixture
def make(replicated_pair):
    opened = []

    def make(**conf):
        app = Celery("replicated", broker="memory://", set_as_current=False)
        app.conf.update(ranch_redis_url=replicated_pair[0].url, **conf)
        opened.append(app)

        @lru_task(app, shared=False, name="replicated.task")
        def task():
            pass

        return task

    yield make
    for app in opened:
        app.close()


def test_a_task_that_no_replica_has_is_refused_and_taken_back(replicated_pair, make):
    task = make(ranch_min_replicas=1)
    task.lru_delay("a")
    with frozen(replicated_pair[1].pid):
        for options in ({}, {"countdown": 100}):
            with pytest.raises(TooFewReplicas, match="only 0 of 1 replicas") as refused:
                task.lru_apply_async("b", **options)
            assert (refused.value.wanted, refused.value.found) == (1, 0)
        task.apply_async(lru_key="a", retries=1)  # admitted with its first try
    seen = audit(task.app)
    assert (seen["waiting"], seen["scheduled"], seen["purged"], seen["missing"]) == (2, 0, 2, 0)
    assert task.get_client_metadata("b")["pending_tasks"] == 0
    assert eventually(lambda: task.lru_delay("b").id)
    ranch_of(task.app).backlog.client.close()


def test_what_a_worker_has_claimed_meanwhile_is_not_taken_back(replicated_pair, make):
    task = make()
    task.lru_delay("a")
    backlog = ranch_of(task.app).backlog
    (queue,) = backlog.queues()
    claimed = backlog.claim(queue, uuid4().hex, uuid4().hex, lease=30, max_attempts=3).claimed
    assert backlog.run("withdraw", [claimed.entry]) == 0
    assert audit(task.app)["in_flight"] == 1
    backlog.client.close()


def test_a_failover_to_an_older_replica_leaves_a_backlog_that_is_whole(replicated_pair, make):
    """It forgets the last moments, as one: no task is half there, late reports change nothing."""
    task = make()
    for _ in range(4):
        task.lru_delay("a")
    backlog = ranch_of(task.app).backlog
    (queue,) = backlog.queues()

    def take(where):
        return where.claim(queue, uuid4().hex, uuid4().hex, lease=30, max_attempts=3).claimed

    known = take(backlog)
    with connect(replicated_pair[1].url) as client:
        replica = Backlog(client, KeySpace("ranch"))
        eventually(lambda: replica.audit() == backlog.audit())
        client.replicaof("NO", "ONE")
        task.lru_delay("late")
        forgotten = take(backlog)
        backlog.report([Report("end", known.entry, known.token, "done", "0.1")])
        backlog.client.close()
        # The workers go on with the server that was the replica.
        reports = [Report("end", each.entry, each.token, "done", "0.1") for each in (known, forgotten)]
        late, _ = replica.report(reports)
        assert late == 1
        seen = replica.audit()
        assert (seen["submitted"], seen["waiting"], seen["in_flight"], seen["done"]) == (4, 3, 0, 1)
        assert seen["entries"] == seen["messages"] == 3
        assert len({take(replica).entry for _ in range(3)}) == 3


def test_on_a_cluster_waiting_for_replicas_is_refused(make, monkeypatch):
    class Cluster:
        nodes_manager = None

    task = make(ranch_min_replicas=1)
    monkeypatch.setattr("celery_ranch.application._client", lambda *_: Cluster())
    with pytest.raises(InvalidParameter, match="min-replicas-to-write"):
        task.lru_delay("a")
