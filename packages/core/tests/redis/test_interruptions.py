"""Every public operation, killed or cut off at every point: done wholly or not at all, and safe to ask again."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from celery_toolkit_core.leases import Lease, Leases
from celery_toolkit_core.local_server import LocalServer
from celery_toolkit_testkit import eventually
from celery_toolkit_testkit.interruptions import Forge

PROGRAM = Path(__file__).with_name("operations.py")
_program = runpy.run_path(str(PROGRAM))
OPERATIONS, World = _program["OPERATIONS"], _program["World"]
NOTHING_CHANGES = {"lease renew", "limits refuse", "limits renew"}  # but the end of a lease, which `seen` leaves out


@pytest.fixture(scope="module")
def forge(redis_server: LocalServer) -> Iterator[Forge]:
    with Forge(PROGRAM, redis_server.url) as forge:
        yield forge


def undisturbed(name: str, client: redis.Redis) -> tuple[Any, Any, Any]:
    """The state before, the answer, the state after, when nothing happens."""
    client.flushall()
    world = World(client)
    data = OPERATIONS[name].prepare(world)
    before = world.seen()
    answer = OPERATIONS[name].act(world, data)
    return before, answer, world.seen()


@pytest.mark.parametrize("name", OPERATIONS)
def test_killed_before_or_after_any_command(name: str, forge: Forge, redis_client: redis.Redis) -> None:
    """Wholly done or not at all at each of the points; done again with the same token, it is done once."""
    before, answer, after = undisturbed(name, redis_client)
    assert (before != after) is (name not in NOTHING_CHANGES)
    states = []
    for moment in ("before", "after"):
        for nth in range(1, 10):
            redis_client.flushall()
            world = World(redis_client)
            data = OPERATIONS[name].prepare(world)
            redis_client.script_flush()  # the victim meets a server that does not know the script yet
            if not forge.kill(name, data, nth, moment):
                break
            states.append(world.seen())
            assert states[-1] in (before, after), (moment, nth)
            again = OPERATIONS[name].act(world, data)
            assert again == answer or not OPERATIONS[name].same_answer, (moment, nth)
            assert world.seen() == after, (moment, nth)
    assert before in states
    assert after in states
    assert len(states) == 6, "EVALSHA, SCRIPT LOAD and EVALSHA, before and after each"


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_lost_answer_is_asked_for_again_by_the_client(
    name: str, redis_client: redis.Redis, tcp_proxy: Callable[..., Any]
) -> None:
    """The server has done it, the connection breaks before the reply, redis-py tries again by itself."""
    _, answer, after = undisturbed(name, redis_client)
    redis_client.flushall()
    data = OPERATIONS[name].prepare(World(redis_client))
    proxy = tcp_proxy()
    with redis.Redis.from_url(proxy.url, retry=Retry(NoBackoff(), 3), socket_timeout=30) as client:
        client.ping()
        proxy.lose_reply("EVALSHA")
        again = OPERATIONS[name].act(World(client), data)
        assert not proxy.fault_pending
    assert again == answer or not OPERATIONS[name].same_answer
    assert World(redis_client).seen() == after


def test_the_lease_of_a_silent_holder_frees_itself(redis_client: redis.Redis, keys: Any) -> None:
    leases = Leases(redis_client, keys, ttl=0.3)
    first = leases.acquire("name", "dead")
    assert isinstance(first, Lease)
    second = eventually(lambda: leases.acquire("name", "heir", ttl=60))
    assert isinstance(second, Lease)
    assert second.fence > first.fence
    assert not leases.renew("name", "dead")
    assert not leases.release("name", "dead")


def test_one_round_trip_each_and_a_flushed_script_comes_back(redis_client: redis.Redis, tcp_proxy: Any) -> None:
    proxy = tcp_proxy()
    with redis.Redis.from_url(proxy.url, socket_timeout=30) as client:
        world = World(client)
        for operation in OPERATIONS.values():
            redis_client.flushall()
            data = operation.prepare(World(redis_client))
            operation.act(world, data)
            redis_client.flushall()
            data = operation.prepare(World(redis_client))
            proxy.commands.clear()
            operation.act(world, data)
            assert dict(proxy.commands) == {"EVALSHA": 1}
            redis_client.flushall()
            data = operation.prepare(World(redis_client))
            redis_client.script_flush()
            operation.act(world, data)
