"""Every call, killed or cut off at every point: each script wholly done or not at all, and safe to ask again."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from celery_toolkit_core.connection import connect
from celery_toolkit_testkit.interruptions import Forge

pytestmark = pytest.mark.not_on("cluster", reason="its victims know one server")

PROGRAM = Path(__file__).with_name("operations.py")
_program = runpy.run_path(str(PROGRAM))
OPERATIONS, World = _program["OPERATIONS"], _program["World"]
NOTHING_CHANGES = {"send a duplicate"}


@pytest.fixture(scope="module")
def forge(redis_server):
    with Forge(PROGRAM, redis_server.url) as forge:
        yield forge


@pytest.fixture
def world(redis_client):
    """All that a world knows is in Redis, so one will do for many turns."""
    return World(redis_client)


def prepare(name, world):
    world.client.flushall()
    OPERATIONS[name].prepare(world)


@pytest.mark.parametrize("name", OPERATIONS)
def test_killed_before_or_after_any_command(name, forge, world):
    """A call of two scripts may end between them; done again in the name of the same task, it is done once."""
    operation = OPERATIONS[name]
    prepare(name, world)
    before = world.seen()
    operation.act(world)
    after = world.seen()
    assert (before != after) is (name not in NOTHING_CHANGES)
    states = []
    for moment in ("before", "after"):
        for nth in range(1, 20):
            prepare(name, world)
            world.client.script_flush()  # the victim meets a server that does not know the scripts yet
            if not forge.kill(name, None, nth, moment):
                break
            states.append(world.seen())
            operation.act(world)
            assert world.seen() == after, (moment, nth)
    assert before in states
    assert after in states
    assert len(states) == 6 * operation.scripts, "EVALSHA, SCRIPT LOAD and EVALSHA, before and after each"
    between = [state for state in states if state not in (before, after)]
    assert all(state == between[0] for state in between)
    assert bool(between) <= (operation.scripts == 2)


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_lost_answer_is_asked_for_again_by_the_client(name, world, tcp_proxy):
    """The server has done it, the connection breaks before the reply, the client tries again by itself."""
    operation = OPERATIONS[name]
    prepare(name, world)
    answer = operation.act(world)
    after = world.seen()
    proxy = tcp_proxy()
    with connect(proxy.url, timeout=30.0) as client:
        client.ping()
        prepare(name, world)
        proxy.lose_reply("EVALSHA")
        again = operation.act(World(client))
        assert not proxy.fault_pending
        assert again == answer or not operation.same_answer or isinstance(answer, list)  # a fence is as new as the lock
        if name == "wake":
            operation.act(World(client))  # the answer named the lanes to look at; whoever looks next gets them
        assert world.seen() == after


def test_a_body_whose_permission_was_lost_on_the_way_starts_all_the_same(redis_client, tcp_proxy):
    """The very same question gets the same answer; a second body with the same token does not start."""
    proxy = tcp_proxy()
    with connect(proxy.url, timeout=30.0) as client:
        world = World(client)
        world.enter(world.limited, "a")
        proxy.lose_reply("EVALSHA")
        claim = world.claim(world.limited, "a")
        assert claim.start() == "go"
        assert claim.stamp
        assert world.claim(world.limited, "a").start() == "stale"
