"""Killed or cut off at every point: done wholly or not at all, and safe to do again, by whoever comes next."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from celery_toolkit_testkit.interruptions import Forge

PROGRAM = Path(__file__).with_name("operations.py")
_program = runpy.run_path(str(PROGRAM))
OPERATIONS, World = _program["OPERATIONS"], _program["World"]


@pytest.fixture(scope="module")
def forge(redis_server):
    with Forge(PROGRAM, redis_server.url) as forge:
        yield forge


def undisturbed(name, client):
    """The state before, the answer, the state after, when nothing happens."""
    client.flushall()
    world = World(client)
    OPERATIONS[name].prepare(world)
    before = world.seen()
    answer = OPERATIONS[name].act(world)
    return before, answer, world.seen()


@pytest.mark.not_on("cluster", reason="lists of a broker have no hash tag; kombu knows no cluster")
@pytest.mark.parametrize("name", OPERATIONS)
def test_killed_before_or_after_any_command(name, forge, redis_client):
    """The one that drains a dead worker's queue may itself be killed at any point: the next one ends the work."""
    before, answer, after = undisturbed(name, redis_client)
    assert before != after
    states = []
    for moment in ("before", "after"):
        for nth in range(1, 10):
            redis_client.flushall()
            world = World(redis_client)
            OPERATIONS[name].prepare(world)
            redis_client.script_flush()  # the victim meets a server that does not know the script yet
            if not forge.kill(name, None, nth, moment):
                break
            states.append(world.seen())
            assert states[-1] in (before, after), (moment, nth)
            again = OPERATIONS[name].act(world)
            assert again == answer or not OPERATIONS[name].same_answer, (moment, nth)
            assert world.seen() == after, (moment, nth)
    assert before in states
    assert after in states
    assert len(states) >= 6, "EVALSHA, SCRIPT LOAD and EVALSHA, before and after each"


@pytest.mark.not_on("cluster", reason="lists of a broker have no hash tag; kombu knows no cluster")
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_lost_answer_is_asked_for_again_by_the_client(name, redis_client, tcp_proxy):
    _, answer, after = undisturbed(name, redis_client)
    redis_client.flushall()
    OPERATIONS[name].prepare(World(redis_client))
    proxy = tcp_proxy()
    with redis.Redis.from_url(proxy.url, retry=Retry(NoBackoff(), 3), socket_timeout=30) as client:
        client.ping()
        proxy.lose_reply("EVALSHA")
        again = OPERATIONS[name].act(World(client))
        assert not proxy.fault_pending
    assert again == answer or not OPERATIONS[name].same_answer
    assert World(redis_client).seen() == after
