"""All that heimdall does, as a Redis user who may do no more than the table says."""

from __future__ import annotations

import re
import runpy
from importlib.resources import files
from pathlib import Path

import pytest

from celery_heimdall import Concurrency, RateLimit, limit, set_limit
from celery_heimdall.acl import COMMANDS, rule
from celery_heimdall.explaining import explain
from celery_heimdall.inspection import locks, parked
from celery_heimdall.task import rate_limited_countdown
from celery_toolkit_core.connection import connect, warn_if_evicting
from celery_toolkit_core.scripts import source

_program = runpy.run_path(str(Path(__file__).with_name("operations.py")))
OPERATIONS, World = _program["OPERATIONS"], _program["World"]
#: Scripts of core that heimdall runs as they are.
OF_CORE = ("take", "release", "renew", "settle", "penalise", "peek", "override")


def test_the_table_has_just_what_the_scripts_call():
    names = [file.name for file in (files("celery_heimdall") / "lua").iterdir()]
    texts = [source("celery_heimdall", name.removesuffix(".lua")) for name in names if name.endswith(".lua")]
    texts += [source("celery_toolkit_core", f"limits_{name}") for name in OF_CORE]
    called = {name.lower() for text in texts for name in re.findall(r"redis\.call\('([A-Z]+)'", text)}
    assert called == set(COMMANDS["in scripts"])


@pytest.mark.not_on("cluster", "unix", "tls", "sentinel", "acl", reason="it makes a user of its own")
def test_the_smallest_user_is_enough_and_nothing_is_refused(redis_client, redis_server):
    redis_client.execute_command(*rule("small", "heimdall").replace(">PASSWORD", ">canary").split())
    redis_client.acl_log_reset()
    with connect(f"redis://small:canary@127.0.0.1:{redis_server.port}/0") as client:
        small = World(client)
        small.app.conf.heimdall_redis_url = f"redis://small:canary@127.0.0.1:{redis_server.port}/0"
        for operation in OPERATIONS.values():
            redis_client.flushall()
            operation.prepare(World(redis_client))
            operation.act(small)
            list(locks(small.store))
            list(locks(small.store, stale=True))
            list(parked(small.store))
            explain(small.app, [small.store], "a")
        api = RateLimit("5/m", name="api")
        with limit(api, Concurrency(1, name="desk"), app=small.app) as grant:
            grant.settle(2)
            grant.renew()
        set_limit("api", "7/m", lasting=60, app=small.app)
        set_limit("api", None, app=small.app)
        assert rate_limited_countdown(small.limited, "", (), {}) >= 0
        assert small.unique.only_after("block", 60)
        assert not warn_if_evicting(client, None)
        client.pipeline(transaction=False).wait(0, 1).execute()
        client.hlen(small.store.parking[0])
    # Redis 6.2 counts the name that redis-py gives its connection among what is dangerous; it goes on without.
    assert [entry for entry in redis_client.acl_log() if entry["object"] != "client"] == []
    redis_client.acl_deluser("small")
