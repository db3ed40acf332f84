"""A worker's channel on Redis notes tickets in its own memory only, and all other messages as kombu does."""

from __future__ import annotations

import pytest
from kombu import Connection, Consumer, Producer, Queue
from kombu.transport import redis

from celery_ranch.ticket_office import TICKET
from celery_ranch.unacked import TicketQoS, note_no_tickets
from celery_toolkit_testkit import eventually

pytestmark = pytest.mark.not_on("cluster", reason="lists of a broker have no hash tag; kombu knows no cluster")


@pytest.fixture
def connection(redis_server, redis_client):
    with Connection(redis_server.url) as connection:
        yield connection


@pytest.fixture
def received(connection):
    """The messages that a channel like a worker's has received, and has not answered."""
    messages = []
    channel = connection.channel()
    note_no_tickets(channel)
    with Consumer(channel, [Queue("q")], on_message=messages.append):
        yield messages


def send(connection, task, number=0):
    headers = {"task": task, "id": f"{task}-{number}"}
    Producer(connection).publish(b"", routing_key="q", headers=headers, declare=[Queue("q")])


def receive(connection, received, count):
    def enough():
        if len(received) < count:
            connection.drain_events(timeout=5)
        return len(received) >= count

    eventually(enough)


def test_only_other_messages_are_noted_at_the_broker(connection, received, redis_client):
    send(connection, TICKET)
    send(connection, "other")
    receive(connection, received, 2)
    other = next(each for each in received if each.headers["task"] == "other")
    assert redis_client.zrange("unacked_index", 0, -1) == [other.delivery_tag.encode()]
    assert redis_client.hkeys("unacked") == [other.delivery_tag.encode()]
    for each in received:
        each.ack()
    assert redis_client.keys("*unacked*") == []
    assert not redis_client.llen("q")


def test_tickets_count_as_prefetched_until_they_are_answered(connection, received):
    qos = received_channel(connection).qos
    qos.prefetch_count = 2
    for number in range(3):
        send(connection, TICKET, number)
    receive(connection, received, 2)
    assert not qos.can_consume()
    received[0].ack()
    assert qos.can_consume()
    received[1].reject()
    receive(connection, received, 3)


def test_a_ticket_rejected_with_requeue_goes_back(connection, received, redis_client):
    received_channel(connection).qos.prefetch_count = 1
    send(connection, TICKET, 1)
    send(connection, TICKET, 2)
    receive(connection, received, 1)
    received[0].requeue()
    assert redis_client.llen("q") == 2
    receive(connection, received, 2)
    received[1].ack()
    receive(connection, received, 3)
    assert sorted(each.headers["id"] for each in received[1:]) == [f"{TICKET}-1", f"{TICKET}-2"]
    assert not redis_client.llen("q")


def test_what_is_open_when_the_channel_closes_goes_back(connection, received, redis_client):
    for number in range(3):
        send(connection, TICKET, number)
    send(connection, "other")
    receive(connection, received, 4)
    received[0].ack()
    received_channel(connection).close()
    assert redis_client.llen("q") == 3
    assert redis_client.keys("*unacked*") == []


def test_a_rejected_or_acknowledged_ticket_is_gone(connection, received, redis_client):
    send(connection, TICKET, 1)
    send(connection, TICKET, 2)
    receive(connection, received, 2)
    received[0].reject()
    received[1].ack()
    received_channel(connection).close()
    assert redis_client.keys("*unacked*") == []
    assert not redis_client.llen("q")


def test_channels_of_others_are_left_alone(connection):
    class TheirQoS(redis.QoS):
        pass

    channel = connection.channel()
    channel.qos.__class__ = TheirQoS
    note_no_tickets(channel)
    assert type(channel.qos) is TheirQoS
    with Connection("memory://") as memory:
        before = type(memory.default_channel.qos)
        note_no_tickets(memory.default_channel)
        assert type(memory.default_channel.qos) is before


def received_channel(connection):
    """The channel of the fixture `received`."""
    (channel,) = (each for each in connection.transport.channels if type(each.qos) is TicketQoS)
    return channel
