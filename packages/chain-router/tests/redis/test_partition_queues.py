"""The partitions' queues on a Redis broker: taken in order, given back in order, adopted once, never lost."""

from __future__ import annotations

import logging
from collections import Counter
from types import SimpleNamespace

import pytest
from celery import Celery

from celery_chain_router import ChainRouter
from celery_chain_router.lane import Lane
from celery_chain_router.queues_redis import HELD_BACK, RedisQueues
from celery_toolkit_core.errors import RedisUnavailable

pytestmark = pytest.mark.not_on("cluster", reason="lists of a broker have no hash tag; kombu knows no cluster")

QUEUE = "chain.0"


class Worker:
    """One worker's side of the queues, with a pool of `room` and nothing else of Celery."""

    def __init__(self, url, fence, *, room=100, partitions=1):
        self.app = Celery("queues", broker=url, set_as_current=False)
        self.router = self.app.conf.task_routes = ChainRouter(mode="partition", partitions=partitions)
        self.fences = dict.fromkeys(range(partitions), fence)
        self.lane = SimpleNamespace(occupied=lambda: 0, held_back=Counter, tags=set())
        self.arrived = []
        self.connection = self.app.connection_for_read()
        consumer = SimpleNamespace(
            prefetch_multiplier=1,
            controller=SimpleNamespace(max_concurrency=None),
            pool=SimpleNamespace(num_processes=room),
            task_consumer=SimpleNamespace(
                on_message=self.receive, channel=self.connection.default_channel, accept=None, on_decode_error=None
            ),
        )
        self.queues = RedisQueues(self.app, self.router.partitions, SimpleNamespace(fence=self.fences.get))
        self.queues.attach(consumer)
        self.queues.consume(range(partitions), [])

    def receive(self, message):
        self.arrived.append(message)
        self.lane.tags.add(message.delivery_tag)

    def send(self, *numbers, **options):
        for number in numbers:
            self.app.send_task("work", (number,), **options)

    def take(self):
        before = len(self.arrived)
        self.queues.poll(self.lane)
        return [number_of(message) for message in self.arrived[before:]]

    def adopt(self, **lane):
        return self.queues.adopt(self.fences, SimpleNamespace(tags=set(), **lane))

    def close(self):
        self.queues.close()
        self.connection.release()
        self.app.close()


def number_of(message):
    return message.payload[0][0]


@pytest.fixture
def worker(redis_server, redis_url):
    made = []

    def make(fence=1, *, url=redis_server.url, **options):
        made.append(Worker(url, fence, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def entries(messages):
    return [SimpleNamespace(delivery=SimpleNamespace(message=message)) for message in messages]


def test_messages_come_in_order_and_are_kept_until_they_are_acknowledged(worker, redis_client):
    one = worker()
    one.send(*range(5))
    assert one.take() == list(range(5))
    assert redis_client.llen(QUEUE) == 0
    assert one.queues.backlog() == ([0], [5])
    for message in one.arrived:
        message.ack()
        assert message.acknowledged
    assert one.queues.backlog() == ([0], [0])
    with pytest.raises(one.arrived[0].MessageStateError):
        one.arrived[0].ack()


def test_they_are_acknowledged_at_once_and_not_when_celery_would(worker):
    """A freeze after the child has begun the next body must not make the one before it run again."""
    one, given = worker(), []
    one.send(1)
    one.take()
    lane = Lane(one.router.partitions, one.fences.get, None, None, lambda: 1)
    in_lane = lane.wrap_strategy(lambda message, payload, ack, *rest: given.append(ack))
    lane.consumer = SimpleNamespace(strategies={"work": in_lane}, app=one.app, connection_errors=())
    soon = []
    in_lane(one.arrived[0], None, soon.append, soon.append, [])
    given[0](logging.getLogger(), ())
    assert one.queues.backlog() == ([0], [0])
    assert soon == []


def test_no_more_than_there_is_room_for(worker):
    one = worker(room=3)
    one.send(*range(5))
    assert one.take() == [0, 1, 2]
    one.lane.occupied = lambda: 3
    assert one.take() == []
    one.lane.occupied = lambda: 2
    assert one.take() == [3]


def test_a_partition_that_is_stuck_does_not_fill_the_worker(worker):
    one = worker(partitions=2)
    for number in range(2 * HELD_BACK):
        one.send(number, queue="chain.0")
    one.send(100, queue="chain.1")
    one.lane.held_back = lambda: Counter({0: HELD_BACK - 2})
    assert sorted(one.take()) == [0, 1, 100]


def test_partitions_take_turns(worker):
    one = worker(partitions=2, room=4)
    for number in range(10):
        one.send(number, queue="chain.0")
        one.send(100 + number, queue="chain.1")
    assert sorted(one.take()) == [0, 1, 100, 101]


def test_what_is_given_back_is_in_front_in_its_order(worker):
    one = worker()
    one.send(*range(5))
    one.take()
    one.arrived[0].ack()
    one.send(5)
    one.queues.give_back(entries(one.arrived[1:]))
    assert one.take() == [1, 2, 3, 4, 5]


def test_a_task_that_rejects_its_message_with_requeue_keeps_its_place(worker):
    one = worker(room=1)
    one.send(0, 1)
    assert one.take() == [0]
    one.arrived[0].reject(requeue=True)
    assert one.take() == [0]


def test_priorities_are_kept(worker):
    one = worker()
    one.send(1, priority=6)
    one.send(0, priority=0)
    one.send(2, priority=9)
    assert one.take() == [0, 1, 2]
    one.queues.give_back(entries(one.arrived))
    assert one.take() == [0, 1, 2]


def test_the_heir_adopts_what_the_dead_one_had_in_its_order_and_once(worker, redis_client):
    dead, heir = worker(1), worker(2)
    dead.send(*range(5))
    dead.take()
    dead.arrived[2].ack()
    dead.send(5)
    assert heir.adopt() == 4
    assert heir.adopt() == 0
    assert heir.take() == [0, 1, 3, 4, 5]
    assert [message.headers.get("redelivered", False) for message in heir.arrived] == [True] * 4 + [False]
    assert heir.arrived[0].delivery_info["redelivered"]
    # From a freeze: none of what it does changes anything for the heir.
    for message in dead.arrived[:2]:
        message.ack()
    dead.queues.give_back(entries(dead.arrived))
    dead.send(6)
    assert dead.take() == []
    assert dead.adopt() == 0
    assert heir.queues.backlog() == ([1], [5])
    assert heir.take() == [6]


def test_what_a_worker_still_has_itself_is_not_adopted(worker):
    one = worker(1)
    one.send(0, 1)
    one.take()
    one.fences[0] = 2
    assert one.queues.adopt(one.fences, SimpleNamespace(tags={one.arrived[0].delivery_tag})) == 1
    assert one.take() == [1]


def test_an_answer_that_is_lost_comes_again(worker, tcp_proxy):
    proxy = tcp_proxy()
    one = worker(url=proxy.url)
    one.send(0)
    assert one.take() == [0]
    one.send(1, 2)
    proxy.lose_reply("EVALSHA")
    try:
        found = one.take()
    except RedisUnavailable:
        found = one.take()
    assert found == [1, 2]
    # Not passed over by what is given back meanwhile: it is younger.
    one.send(3)
    proxy.lose_reply("EVALSHA")
    try:
        found = one.take()
    except RedisUnavailable:
        one.queues.give_back(entries(one.arrived))
        assert one.take() == [0, 1, 2, 3]
    else:
        assert found == [3]


def test_an_acknowledgement_waits_for_the_server(worker, tcp_proxy):
    proxy = tcp_proxy()
    one = worker(url=proxy.url)
    one.send(0)
    one.take()
    with proxy.refusing():
        proxy.cut()
        one.arrived[0].ack()
        assert not one.queues.is_settled
    one.take()
    assert one.queues.is_settled
    assert one.queues.backlog() == ([0], [0])


def test_what_cannot_be_read_is_put_aside(worker, redis_client):
    one = worker()
    redis_client.lpush(QUEUE, b"\xff no message")
    one.send(1)
    assert one.take() == [1]
    assert redis_client.lrange("chain.0.unreadable", 0, -1) == [b"\xff no message"]
    assert one.queues.backlog() == ([0], [1])


def test_a_prefix_of_all_keys(worker, redis_client):
    one = worker()
    one.app.conf.broker_transport_options = {"global_keyprefix": "shop:"}
    one.send(0)
    assert redis_client.llen("shop:chain.0") == 1
    assert one.take() == [0]
    assert redis_client.exists("shop:chain.0.taken")


def test_a_full_server_loses_nothing(worker, redis_client):
    one = worker()
    one.send(*range(5))
    redis_client.config_set("maxmemory", 1)
    try:
        assert one.take() == list(range(5))
        one.queues.give_back(entries(one.arrived))
        assert one.queues.backlog() == ([5], [0])
    finally:
        redis_client.config_set("maxmemory", 0)
