"""Tickets on their way to the broker: the short way does what the ordinary one does."""

from __future__ import annotations

import json
from functools import partial

import pytest
from celery import Celery
from kombu import Connection, Exchange, Producer, Queue
from kombu.transport.redis import Channel

from celery_ranch.application import Address, ranch_of
from celery_toolkit_testkit import eventually

TOPIC = Queue("routed", Exchange("topics", type="topic"), routing_key="a.#")
EXPIRING = Queue("expiring", expires=60)


@pytest.fixture
def office(redis_server, redis_client):
    """Publishes tickets by one producer of an application, and shows what came to a queue, oldest first."""

    class Office:
        def __init__(self, url=redis_server.url, **options):
            self.app = Celery("office", broker=url, set_as_current=False)
            self.app.conf.broker_transport_options = options
            self.pool = self.app.connection_for_write()
            self.producer = self.app.amqp.Producer(self.pool)

        def send(self, times=1, *, producer=None, address=None, **options):
            for _ in range(times):
                ranch_of(self.app).publish_ticket(
                    address or Address("", "celery"),
                    producer or self.producer,
                    retry=True,
                    retry_policy={"max_retries": 3},
                    **options,
                )

        def seen(self, key="celery"):
            return [json.loads(each) for each in reversed(redis_client.lrange(key, 0, -1))]

    made = []

    def make(*args, **options):
        made.append(Office(*args, **options))
        return made[-1]

    yield make
    for each in made:
        each.pool.close()
        each.app.close()


def ids(ticket):
    return ticket["headers"].pop("id"), ticket["properties"].pop("delivery_tag")


def test_tickets_of_both_ways_differ_only_in_their_ids(office):
    opened = office()
    opened.send(4, delivery_mode=2)
    tickets = opened.seen()
    names = [each for ticket in tickets for each in ids(ticket)]
    assert len(set(names[::2])) == len(set(names[1::2])) == 4
    assert all(ticket == tickets[0] for ticket in tickets)
    assert tickets[0]["properties"]["delivery_mode"] == 2


def test_a_short_way_creates_no_client_and_sends_one_command(office, tcp_proxy):
    proxy = tcp_proxy()
    opened = office(proxy.url)
    opened.send(2)
    proxy.commands.clear()
    opened.send(5)
    assert dict(proxy.commands) == {"LPUSH": 5}


def test_a_broken_connection_is_replaced_and_no_ticket_is_missing(office, cut_connections):
    opened = office()
    opened.send(2)
    cut_connections()
    opened.send(3)
    assert len(opened.seen()) >= 5


def test_a_lost_reply_may_make_a_surplus_ticket_but_never_a_missing_one(office, tcp_proxy):
    proxy = tcp_proxy()
    opened = office(proxy.url)
    opened.send(2)
    proxy.lose_reply("LPUSH")
    opened.send(2)
    assert not proxy.fault_pending
    assert len(opened.seen()) in (4, 5)


@pytest.mark.not_on("cluster", reason="lists of a broker have no hash tag; kombu knows no cluster")
def test_a_key_prefix_and_an_exchange_are_honoured(office):
    prefixed = office(global_keyprefix="mine:")
    prefixed.send(3)
    assert len(prefixed.seen("mine:celery")) == 3
    routed = office()
    routed.send(3, address=Address("topics", "a.b"), declare=[TOPIC])
    assert len(routed.seen("routed")) == 3


@pytest.mark.skipif(
    not hasattr(Channel, "_maybe_update_queues_expire"), reason="this kombu knows no x-expires on Redis"
)
@pytest.mark.not_on("cluster", reason="lists of a broker have no hash tag; kombu knows no cluster")
def test_an_expiring_queue_is_honoured(office, redis_client):
    expiring = office()
    expiring.send(3, address=Address("", "expiring"), declare=[EXPIRING])
    assert len(expiring.seen("expiring")) == 3
    assert 0 < redis_client.pttl("expiring") <= 60_000
    before = redis_client.pttl("expiring")
    eventually(lambda: redis_client.pttl("expiring") < before)
    expiring.send(1, address=Address("", "expiring"), declare=[EXPIRING])
    assert redis_client.pttl("expiring") >= before - 1000


def test_a_producer_of_the_users_own_sees_every_ticket(office):
    seen = []

    class Watching(Producer):
        def publish(self, body, **options):
            seen.append(options["headers"]["task"])
            return super().publish(body, **options)

    opened = office()
    opened.send(3, producer=Watching(opened.pool, auto_declare=False))
    assert seen == ["celery_ranch.ticket"] * 3


def test_other_transports_take_tickets_too(office):
    opened = office()
    with Connection("memory://") as memory:
        queue = memory.SimpleQueue("tickets")
        opened.send(3, producer=queue.producer, address=Address("", "tickets"))
        read = partial(queue.get, block=False)
        assert len({read().headers["id"] for _ in range(3)}) == 3
        queue.close()
