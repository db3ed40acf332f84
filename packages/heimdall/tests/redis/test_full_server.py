"""A server at maxmemory (noeviction): what adds is refused and leaves nothing, what ends or renews still works."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from celery_heimdall import visits
from celery_heimdall.visits import Visit
from celery_heimdall.waking import Waker
from celery_toolkit_core.errors import RedisFull

pytestmark = pytest.mark.not_on("cluster", reason="it sets one server")

_program = runpy.run_path(str(Path(__file__).with_name("operations.py")))
OPERATIONS, World = _program["OPERATIONS"], _program["World"]
#: What was accepted goes on to its end.
ENDS = {
    "send a duplicate",
    "release_lock",
    "cancel",
    "enter, unique",
    "begin",
    "start",
    "finish",
    "finish, comes back",
    "finish, never began",
}


@pytest.fixture
def fill(redis_client):
    """Fills the server to its limit; emptied afterwards."""
    yield lambda: redis_client.config_set("maxmemory", 1)
    redis_client.config_set("maxmemory", 0)


@pytest.mark.parametrize("name", sorted(set(OPERATIONS) - {"wake"}))
def test_what_ends_goes_on_and_what_adds_is_refused(name, redis_client, fill):
    operation = OPERATIONS[name]
    world = World(redis_client)
    operation.prepare(world)
    before = world.seen()
    operation.act(world)
    after = world.seen()
    redis_client.flushall()
    operation.prepare(world)
    fill()
    if name in ENDS:
        operation.act(world)
        assert world.seen() == after
    else:
        with pytest.raises(RedisFull, match="maxmemory"):
            operation.act(world)
        assert world.seen() == before


def test_a_running_task_is_renewed(redis_client, fill):
    world = World(redis_client)
    world.enter(world.both, "a")
    claim = world.claim(world.both, "a")
    assert claim.start() == "go"
    visit = Visit(claim, world.app, holds=True)
    redis_client.hset(claim.lock.key, "running_until_ms", (redis_client.time()[0] + 5) * 1000)
    fill()
    try:
        visits.renew(world.store)
    finally:
        visits._visits.pop(claim.token)
    assert not visit.lost
    left_ms = int(redis_client.hget(claim.lock.key, "running_until_ms")) - redis_client.time()[0] * 1000
    assert left_ms > 3000_000


def test_what_is_parked_stays_so_until_there_is_memory(redis_client, fill):
    world = World(redis_client)
    OPERATIONS["wake"].prepare(world)
    redis_client.zadd(world.store.parking[2], {world.claim(world.limited, "a").limits_lane: 0})
    before = world.seen()
    fill()
    with pytest.raises(RedisFull, match="maxmemory"):
        Waker(world.app).look(world.store)
    assert world.seen() == before
    redis_client.config_set("maxmemory", 0)
    assert world.wake() == 1
