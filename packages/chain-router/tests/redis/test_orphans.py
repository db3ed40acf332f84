"""Orphans on a real broker: messages of a dead worker's queue go to the owners of today, untouched and in order."""

from __future__ import annotations

import json
import threading

import pytest
from celery import Celery
from kombu import Exchange, Queue

from celery_chain_router import ChainRouter
from celery_chain_router.membership import Member
from celery_chain_router.orphans import Orphans
from celery_chain_router.redis_broker import PAGE
from celery_toolkit_testkit import TcpProxy

pytestmark = pytest.mark.not_on("cluster", reason="lists of a broker have no hash tag; kombu knows no cluster")

GONE = [Member("dead", "gone")]


@pytest.fixture
def app(redis_server, redis_url):
    # By host and port, whichever way `redis_url` takes: kombu's own ways are not ours to test.
    app = Celery("orphans", broker=redis_server.url, set_as_current=False)
    app.conf.chain_router_discovery = False
    router = app.conf.task_routes = ChainRouter(routing_key="key")
    router.register_worker("dead")

    @app.task(name="work", shared=False)
    def work(number, key):
        """A task with a key."""

    app.finalize()
    yield app
    app.close()


@pytest.fixture
def orphans(app):
    orphans = Orphans(app, app.conf.task_routes.hash_function)
    yield orphans
    orphans.close()


def change_ring(app, *names):
    router = app.conf.task_routes
    for name in names:
        router.register_worker(name)
    router.unregister_worker("dead")
    return router.ring


def send(app, numbers, **options):
    for number in numbers:
        app.tasks["work"].apply_async((number, f"c{number % 7}"), **options)


def numbers(client, queue):
    """Numbers of the messages in the order in which they would be taken."""
    return [number_of(raw) for raw in reversed(client.lrange(queue, 0, -1))]


def number_of(raw):
    return int(json.loads(raw)["headers"]["argsrepr"].partition(",")[0].strip("("))


def without_address(raw):
    """A message but for what tells where it is: `Mark.queue`, `Mark.ring` and the routing key."""
    message = json.loads(raw)
    message["headers"].pop("chain_router", None)
    info = message["properties"].pop("delivery_info")
    assert info.get("exchange") == ""
    return json.dumps(message, sort_keys=True)


def test_every_message_goes_to_its_keys_owner_as_it_is_and_in_order(app, orphans, redis_client):
    send(app, range(PAGE * 2 + 50))
    sent = {without_address(raw) for raw in redis_client.lrange("dead", 0, -1)}
    ring = change_ring(app, "a", "b")
    redis_client.lpush("a", json.dumps({"headers": {"argsrepr": "(9999,"}, "body": ""}))
    assert orphans.adopt(GONE, ring) == PAGE * 2 + 50
    assert redis_client.llen("dead") == 0
    moved = {queue: [raw for raw in redis_client.lrange(queue, 0, -1) if number_of(raw) != 9999] for queue in "ab"}
    assert {without_address(raw) for queue in "ab" for raw in moved[queue]} == sent
    for queue in "ab":
        for message in map(json.loads, moved[queue]):
            assert message["headers"]["chain_router"].items() >= {"queue": queue, "ring": ring.fingerprint}.items()
            assert message["properties"]["delivery_info"]["routing_key"] == queue
    for queue in ("a", "b"):
        order = numbers(redis_client, queue)
        assert all(ring.get(f"c{number % 7}") == queue for number in order if number != 9999)
        # Older than what the new owner has, so in front of it.
        assert order == sorted(order)
    assert orphans.adopt(GONE, ring) == 0


def test_priorities_are_kept(app, orphans, redis_client):
    send(app, range(10), priority=9)
    queues = {key for key in redis_client.keys("dead*") if redis_client.type(key) == b"list"}
    ring = change_ring(app, "a")
    assert orphans.adopt(GONE, ring) == 10
    assert {key.replace(b"dead", b"a") for key in queues} == {
        key for key in redis_client.keys("a*") if redis_client.type(key) == b"list"
    }


def test_a_prefix_of_the_brokers_keys_is_kept(app, redis_client):
    app.conf.broker_transport_options = {"global_keyprefix": "shop:"}
    orphans = Orphans(app, app.conf.task_routes.hash_function)
    send(app, range(3))
    assert orphans.adopt(GONE, change_ring(app, "a")) == 3
    assert redis_client.llen("shop:a") == 3
    orphans.close()


def test_chosen_and_unreadable_messages_stay_and_foreign_ones_do_not(app, orphans, redis_client):
    send(app, [1], queue="dead")
    send(app, [2])
    foreign = json.dumps({"body": "", "headers": {"id": "x"}, "properties": {}}).encode()
    redis_client.rpush("dead", b"\x00no json", foreign, b'"text"', b"{}")
    assert orphans.adopt(GONE, change_ring(app, "a")) == 2
    assert {number_of(raw) for raw in redis_client.lrange("a", 0, -1) if b"argsrepr" in raw} == {2}
    assert "x" in [json.loads(raw)["headers"]["id"] for raw in redis_client.lrange("a", 0, -1)]
    assert set(redis_client.lrange("dead", 0, -1)) >= {b"\x00no json", b'"text"', b"{}"}
    assert redis_client.llen("dead") == 4


def test_nothing_is_moved_to_nobody_or_to_itself(app, orphans, redis_client):
    send(app, range(3))
    router = app.conf.task_routes
    assert orphans.adopt(GONE, router.ring) == 0
    assert orphans.adopt(GONE, ChainRouter().ring) == 0
    assert redis_client.llen("dead") == 3


def test_companions_go_to_the_companions_of_the_new_owner(app, orphans, redis_client):
    send(app, [1], queue="dead.wake")
    ring = change_ring(app, "a")
    assert orphans.adopt([Member("dead", "gone", companions=(".wake",))], ring) == 1
    assert redis_client.llen("a.wake") == 1


def test_two_that_adopt_at_once_lose_and_double_nothing(app, orphans, redis_client):
    send(app, range(2000))
    sent = sorted(map(without_address, redis_client.lrange("dead", 0, -1)))
    ring = change_ring(app, "a", "b")
    others = [Orphans(app, app.conf.task_routes.hash_function) for _ in range(3)]
    threads = [threading.Thread(target=other.adopt, args=(GONE, ring)) for other in others]
    for thread in threads:
        thread.start()
    orphans.adopt(GONE, ring)
    for thread in threads:
        thread.join()
    moved = redis_client.lrange("a", 0, -1) + redis_client.lrange("b", 0, -1)
    assert sorted(map(without_address, moved)) == sent
    for other in others:
        other.close()


def test_a_replayed_script_moves_nothing_twice(redis_client):
    from celery_toolkit_core.scripts import Scripts

    redis_client.rpush("dead", "m1")
    scripts = Scripts(redis_client, "celery_chain_router")
    assert [scripts.run("move_messages", ["dead", "a"], [2, "m1", "M1"]) for _ in range(2)] == [1, 0]
    assert redis_client.lrange("a", 0, -1) == [b"M1"]
    redis_client.hset("unacked", "tag", "m2")
    redis_client.zadd("unacked_index", {"tag": 1})
    arguments = ["restore_messages", ["unacked", "unacked_index", "a"], ["tag", 3, "M2"]]
    assert [scripts.run(*arguments) for _ in range(2)] == [1, 0]
    assert redis_client.lrange("a", 0, -1) == [b"M1", b"M2"]
    assert redis_client.exists("unacked", "unacked_index") == 0


def take(app, queue, amount):
    """Take messages in hand as a consumer does that is then killed: they are never acknowledged."""
    with app.connection_for_read() as connection:
        channel = connection.channel()
        channel.qos.restore_at_shutdown = False
        bound = app.amqp.queues[queue](channel)
        bound.declare()
        taken = [bound.get(no_ack=False) for _ in range(amount)]
        channel.qos._delivered.clear()
    return taken


def test_what_a_dead_worker_had_in_hand_comes_first_once_and_marked_as_redelivered(app, orphans, redis_client):
    send(app, range(12))
    assert len(take(app, "dead", 6)) == 6
    assert redis_client.hlen("unacked") == 6
    send(app, [12], queue="elsewhere")
    take(app, "elsewhere", 1)
    redis_client.hset("unacked", "poison", b"\xff")
    ring = change_ring(app, "a", "b")
    assert orphans.adopt(GONE, ring) == 12
    assert redis_client.hlen("unacked") == 2
    assert redis_client.zcard("unacked_index") == 1
    for queue in "ab":
        assert numbers(redis_client, queue) == [number for number in range(12) if ring.get(f"c{number % 7}") == queue]
        for message in map(json.loads, redis_client.lrange(queue, 0, -1)):
            assert message["headers"].get("redelivered", False) is (number_of(json.dumps(message)) < 6)
            assert message["properties"]["delivery_info"]["routing_key"] == queue
    # What the new owner has taken in hand meanwhile is its own.
    take(app, "a", 2)
    assert orphans.adopt(GONE, ring) == 0
    assert Orphans(app, app.conf.task_routes.hash_function).adopt(GONE, ring) == 0


def test_what_was_chosen_for_a_dead_worker_waits_for_it_again(app, orphans, redis_client):
    send(app, [1], queue="dead")
    take(app, "dead", 1)
    assert orphans.restore(GONE[0], change_ring(app, "a")) == 1
    assert numbers(redis_client, "dead") == [1]
    assert json.loads(redis_client.lrange("dead", 0, -1)[0])["headers"]["chain_router"]["pinned"]


def test_in_hand_out_of_a_queue_with_an_exchange_of_its_own(app, orphans, redis_client):
    # A name of its own: kombu's pooled connections remember by name which queues they have declared.
    own = Queue("by-topic", Exchange("jobs", "topic"), "jobs.#")
    app.amqp.queues.add(own)
    with app.producer_pool.acquire(block=True) as producer:
        about = {"task": "work", "id": "x", "argsrepr": "(1, 'c1')"}
        producer.publish([], exchange=own.exchange, routing_key="jobs.letter", headers=about, declare=[own])
    assert take(app, "by-topic", 1) != [None]
    assert orphans.adopt([Member("by-topic", "gone")], change_ring(app, "a")) == 1
    assert numbers(redis_client, "a") == [1]


def test_a_server_without_memory_still_lets_messages_move(app, orphans, redis_client):
    send(app, range(20))
    ring = change_ring(app, "a")
    redis_client.config_set("maxmemory", 1)
    try:
        assert orphans.adopt(GONE, ring) == 20
    finally:
        redis_client.config_set("maxmemory", 0)


def test_companions_of_one_that_died_before_it_told_them_are_adopted_too(app, redis_client):
    orphans = Orphans(app, app.conf.task_routes.hash_function, lambda: [".wake"])
    send(app, [1], queue="dead.wake")
    assert orphans.adopt(GONE, change_ring(app, "a")) == 1
    assert redis_client.llen("a.wake") == 1
    orphans.close()


def test_a_look_at_many_dead_workers_is_one_round_trip(redis_server):
    """Each deploy leaves as many of them as there were pods."""
    with TcpProxy(redis_server.url) as proxy:
        app = Celery("many", broker=proxy.url, set_as_current=False)
        router = ChainRouter()
        router.register_worker("a")
        orphans = Orphans(app, router.hash_function, lambda: [".wake"])
        gone, ring = [Member(f"dead{number}", "gone") for number in range(200)], router.ring
        orphans.adopt(gone, ring)
        # So long a question travels in parts: no answer to the first may come before the last is on its way.
        proxy.latency, before = 0.1, proxy.round_trips
        assert orphans.adopt(gone, ring) == 0
        assert proxy.round_trips == before + 1
        orphans.close()
        app.close()
