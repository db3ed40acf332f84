"""A server at maxmemory (noeviction): what adds is refused clearly, what ends or keeps something still works."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from celery_toolkit_core.errors import RedisFull

_program = runpy.run_path(str(Path(__file__).with_name("operations.py")))
OPERATIONS, World = _program["OPERATIONS"], _program["World"]
ADDS = {
    "lease acquire",
    "limits take",
    "limits override",
    "delayed put",
    "letters put",
    "letters take",
    "letters take oldest",
}


@pytest.fixture
def fill(redis_client: redis.Redis) -> Iterator[Callable[[], Any]]:
    """Fills the server to its limit; emptied afterwards."""
    yield lambda: redis_client.config_set("maxmemory", 1)
    redis_client.config_set("maxmemory", 0)


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name not in ADDS])
def test_still_works_on_a_full_server(name: str, redis_client: redis.Redis, fill: Callable[[], Any]) -> None:
    world = World(redis_client)
    data = OPERATIONS[name].prepare(world)
    expected = OPERATIONS[name].act(world, data)
    after = world.seen()
    redis_client.flushall()
    data = OPERATIONS[name].prepare(world)
    fill()
    assert OPERATIONS[name].act(world, data) == expected
    assert world.seen() == after


@pytest.mark.parametrize("name", sorted(ADDS))
def test_is_refused_clearly_on_a_full_server(name: str, redis_client: redis.Redis, fill: Callable[[], Any]) -> None:
    world = World(redis_client)
    data = OPERATIONS[name].prepare(world)
    before = world.seen()
    fill()
    with pytest.raises(RedisFull, match="maxmemory"):
        OPERATIONS[name].act(world, data)
    assert world.seen() == before
