"""All that ranch does, as a Redis user who may do no more than the table says."""

from __future__ import annotations

import pytest

from celery_ranch import Clients, audit, lru_task
from celery_ranch.application import ranch_of
from celery_ranch.entries import Report
from celery_ranch.reasons import explain
from celery_ranch.simulation import simulate
from celery_ranch.standings import standings
from celery_ranch.traces import example, recorded
from celery_toolkit_testkit import eventually

pytestmark = pytest.mark.not_on("cluster", "unix", "tls", "sentinel", "acl", reason="it makes a user of its own")


@pytest.fixture
def limited(app, ranch, redis_client, redis_server):
    """The application, as that user."""
    words = ranch("acl", "--user", "small").strip().replace(">PASSWORD", ">canary").split()
    assert words[:2] == ["ACL", "SETUSER"]
    redis_client.execute_command(*words)
    redis_client.acl_log_reset()
    app.conf.ranch_redis_url = f"redis://small:canary@127.0.0.1:{redis_server.port}/0"
    yield app
    redis_client.acl_deluser("small")


def test_the_smallest_user_is_enough_and_nothing_is_refused(limited, claim, redis_client):
    @lru_task(limited, shared=False, name="acl.task")
    def task():
        pass

    backlog, clients = ranch_of(limited).backlog, Clients(limited)
    backlog.client.script_load("return 1")
    for _ in range(4):
        task.lru_delay("a", tags={"tier": "gold"}, priority_weight=0.5)
    clients.set_custom("a", "impact", 1)
    assert clients.tagged("tier") == ["a"]
    claimed = claim(limited)
    assert backlog.renew([(claimed.entry, claimed.token)], lease=30) == []
    backlog.report([Report("end", claimed.entry, claimed.token, "done", "0.1")])
    claimed = claim(limited, lease=0.001)
    eventually(lambda: backlog.tend(max_attempts=1, idle_queues=list(backlog.queues())).dead)
    clients.pause("a")
    clients.resume("a")
    assert clients.purge("a") == 2
    assert audit(limited)["missing"] == 0
    assert simulate(backlog.client, "ranch", example()[:20], "fair", workers=2)
    assert len(list(recorded(limited, backlog))) == 1
    assert standings(limited).clients
    assert explain(limited, "nobody")[0]["reason"] == "unknown"
    # Redis 6.2 counts the name that redis-py gives its connection among what is dangerous; it goes on without.
    assert [entry for entry in redis_client.acl_log() if entry["object"] != "client"] == []
