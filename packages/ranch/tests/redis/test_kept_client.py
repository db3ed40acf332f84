"""A worker's channel keeps its client: the same messages by the same commands, and a new pool is followed."""

from __future__ import annotations

import pytest
from kombu import Connection

from celery_ranch.kept_client import keep_client

pytestmark = pytest.mark.not_on("cluster", reason="lists of a broker have no hash tag; kombu knows no cluster")


@pytest.fixture
def channel(redis_server, redis_client):
    with Connection(redis_server.url) as connection:
        channel = connection.default_channel
        keep_client(channel)
        yield channel


def test_messages_go_come_and_are_acknowledged(channel, redis_client):
    queue = channel.connection.client.SimpleQueue("kept")
    for number in range(3):
        queue.put(number)
    for number in range(3):
        message = queue.get(block=True, timeout=30)
        assert message.payload == number
        message.ack()
    assert redis_client.keys("unacked*") == []
    queue.close()


def test_one_client_serves_until_the_pool_is_another(channel):
    first = channel._create_client()
    assert channel._create_client() is first
    assert channel._create_client(asynchronous=True) is not first
    channel._disconnect_pools()
    second = channel._create_client()
    assert second is not first
    assert second.connection_pool is channel.pool
    second.ping()


def test_a_broken_connection_is_replaced(channel, redis_client):
    channel._create_client().ping()
    redis_client.client_kill_filter(_type="normal", skipme=True)
    assert channel._size("kept") == 0


def test_channels_of_other_transports_are_left_alone():
    with Connection("memory://") as connection:
        before = dict(vars(connection.default_channel))
        keep_client(connection.default_channel)
        assert dict(vars(connection.default_channel)) == before
