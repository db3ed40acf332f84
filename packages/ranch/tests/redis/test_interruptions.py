"""Every script of the backlog, killed or cut off at every point: wholly done or not at all, and safe to ask again."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from celery_toolkit_core.connection import connect
from celery_toolkit_testkit.interruptions import Forge

PROGRAM = Path(__file__).with_name("operations.py")
_program = runpy.run_path(str(PROGRAM))
OPERATIONS, World = _program["OPERATIONS"], _program["World"]

pytestmark = pytest.mark.not_on("cluster", reason="its victims know one server")


@pytest.fixture(scope="module")
def forge(redis_server):
    with Forge(PROGRAM, redis_server.url) as forge:
        yield forge


@pytest.fixture
def world(redis_client):
    return World(redis_client)


def prepare(name, world):
    world.client.flushall()
    OPERATIONS[name].prepare(world)


def undisturbed(name, world):
    """The state before, the answer, the state after, when nothing happens."""
    prepare(name, world)
    before = world.seen()
    answer = OPERATIONS[name].act(world)
    return before, answer, world.seen()


@pytest.mark.parametrize("name", OPERATIONS)
def test_killed_before_or_after_any_command(name, forge, world):
    """Wholly done or not at all at each of the points; done again, it is done once."""
    before, answer, after = undisturbed(name, world)
    assert before != after
    states = []
    for moment in ("before", "after"):
        for nth in range(1, 10):
            prepare(name, world)
            world.client.script_flush()  # the victim meets a server that does not know the script yet
            if not forge.kill(name, None, nth, moment):
                break
            states.append(world.seen())
            assert states[-1] in (before, after), (moment, nth)
            again = OPERATIONS[name].act(world)
            assert again == answer or not OPERATIONS[name].same_answer, (moment, nth)
            assert world.seen() == after, (moment, nth)
    assert before in states
    assert after in states


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_lost_answer_is_asked_for_again_by_the_client(name, world, tcp_proxy):
    """The server has done it, the connection breaks before the reply, the client tries again by itself."""
    _, answer, after = undisturbed(name, world)
    proxy = tcp_proxy()
    with connect(proxy.url, timeout=30.0) as client:
        client.ping()
        prepare(name, world)
        proxy.lose_reply("EVALSHA")
        again = OPERATIONS[name].act(World(client))
        assert not proxy.fault_pending
    assert again == answer or not OPERATIONS[name].same_answer
    assert world.seen() == after
