"""All that the membership does, as a Redis user who may do no more than the table says."""

from __future__ import annotations

import pytest

from celery_chain_router.acl import rule
from celery_chain_router.membership import Member, Membership
from celery_chain_router.ownership import Ownership
from celery_chain_router.traffic import Traffic
from celery_toolkit_core.connection import connect
from celery_toolkit_core.keys import KeySpace
from celery_toolkit_core.leases import Leases

KEYS = KeySpace("chain-router", "test")
RECORD = Member("", "up").record()

pytestmark = pytest.mark.not_on("cluster", "unix", "tls", "sentinel", "acl", reason="it makes a user of its own")


@pytest.fixture
def small(redis_client, redis_server):
    """A client that is that user."""
    words = rule("small", KEYS).replace(">PASSWORD", ">canary").split()
    assert words[:2] == ["ACL", "SETUSER"]
    redis_client.execute_command(*words)
    redis_client.acl_log_reset()
    client = connect(f"redis://small:canary@127.0.0.1:{redis_server.port}/0")
    yield client
    client.close()
    redis_client.acl_deluser("small")


def test_the_smallest_user_is_enough_and_nothing_is_refused(small, redis_client):
    members = Membership(small, KEYS, lease=30)
    members.join(["w1"], "t1", RECORD)
    members.join([], "t2", RECORD, slots="w", traffic=Traffic(1.0).record())
    members.drain("w1")
    redis_client.zadd(KEYS.key("ends"), {"w1": 1})
    members.join(["w2"], "t2", RECORD)
    redis_client.zadd(KEYS.key("gone"), {"w1": 1})
    members.join(["w2"], "t2", RECORD)
    assert set(members.view().members) == set(members.traffic()) == {"w2"}
    leases = Leases(small, KEYS, ttl=30)
    assert leases.acquire("sweep", "t2")
    assert leases.renew("sweep", "t2")
    assert leases.release("sweep", "t2")
    ownership = Ownership(members, 4)
    ownership.beat("w2", "t2", RECORD)
    fences = ownership.acquire("w2", "t2")
    assert len(fences) == len(ownership.view()) == 4
    ownership.look()
    ownership.release("t2", fences)
    ownership.stand_down("w2", "t2", 1.0)
    assert members.leave("w2", "t2")
    # Redis 6.2 counts the name that redis-py gives its connection among what is dangerous; it goes on without.
    assert [entry for entry in redis_client.acl_log() if entry["object"] != "client"] == []
