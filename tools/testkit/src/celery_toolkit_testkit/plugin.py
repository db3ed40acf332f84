"""The pytest plugin: fixtures around real servers and processes, loaded wherever the testkit is installed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NoReturn

import pytest
import redis

from celery_toolkit_core.local_server import LocalServer, ServerNotFound

if TYPE_CHECKING:
    from collections.abc import Iterator


def missing(reason: str) -> NoReturn:
    """Skip because a server is not installed; under ``CI=true`` that is a failure."""
    if os.environ.get("CI", "").lower() in ("true", "1"):
        pytest.fail(f"needed under CI: {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[LocalServer]:
    """A private Redis server of this test process (each xdist worker has its own), for the whole session."""
    try:
        server = LocalServer()
    except ServerNotFound as error:
        missing(str(error))
    with server:
        yield server


@pytest.fixture
def redis_url(redis_server: LocalServer) -> str:
    """The URL of the private server, emptied for this test; started anew if a test has ended it."""
    redis_server.start()
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
        client.script_flush()
    return redis_server.url


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[redis.Redis]:
    """A client of the private, emptied server; it answers with bytes."""
    with redis.Redis.from_url(redis_url, socket_timeout=10.0) as client:
        yield client
