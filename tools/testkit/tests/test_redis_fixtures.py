"""The private server: there, empty, and another one in each xdist worker."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("_round", [1, 2])
def test_each_test_finds_an_empty_server(redis_client, _round):
    assert redis_client.dbsize() == 0
    redis_client.set("left-over", "1")


def test_the_client_belongs_to_the_private_server(redis_client, redis_server):
    assert redis_client.info("server")["process_id"] == redis_server.pid


def test_a_server_that_a_test_killed_is_there_again_for_the_next(redis_server, redis_client):
    assert redis_client.ping()
    redis_server.kill()


def test_after_the_kill(redis_client):
    assert redis_client.ping()
