"""Sharing on a real server: producers follow the membership without waiting for it."""

from __future__ import annotations

import os
import threading
import time

import pytest
from celery import Celery

from celery_chain_router import ChainRouter
from celery_chain_router.discovery import key_space, settings_of
from celery_chain_router.mark import HEADER, Mark
from celery_chain_router.membership import Member, Membership
from celery_toolkit_core.canonical import key_bytes
from celery_toolkit_core.celery.forwarding import forwarded
from celery_toolkit_core.errors import InvalidParameter
from celery_toolkit_testkit import eventually

KEYS = [f"c{index}" for index in range(200)]


def record(weight: float = 1.0) -> str:
    return Member("", "up", weight).record()


@pytest.fixture
def app(redis_url):
    app = Celery("sharing", broker=redis_url, set_as_current=False)
    app.conf.chain_router_ring = "test"
    app.conf.task_routes = ChainRouter(routing_key="customer_id")

    @app.task(name="order", shared=False)
    def order(customer_id):
        """A task with a key."""

    app.finalize()
    yield app
    app.close()


@pytest.fixture
def members(app, redis_client) -> Membership:
    return Membership(redis_client, key_space(settings_of(app)))


def queue_of(app: Celery, key: str = "c1") -> str:
    return app.amqp.Router().route({}, "order", (key,), {}, app.tasks["order"])["queue"].name


def test_the_first_call_knows_who_is_there(app, members):
    members.join(["worker1"], "t1", record())
    assert queue_of(app) == "worker1"


def test_threads_that_make_the_first_call_together_all_know(app, members):
    members.join(["worker1"], "t1", record())
    app.amqp.Router()
    found: list[str] = []
    barrier = threading.Barrier(8)

    def call():
        barrier.wait()
        found.append(queue_of(app))

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["worker1"] * 8


def test_without_a_member_it_is_the_default_queue(app):
    assert queue_of(app) == "celery"


def test_producers_follow_joins_and_leaves(app, members):
    members.join(["worker1"], "t1", record())
    router = app.conf.task_routes
    queue_of(app)
    members.join(["worker2"], "t2", record(3))
    eventually(lambda: queue_of(app) and set(router.ring) == {"worker1", "worker2"})
    assert router.ring.weights["worker2"] == 3
    before = {key: router.get_worker_for_key(key) for key in KEYS}
    members.leave("worker2", "t2")
    eventually(lambda: queue_of(app) and set(router.ring) == {"worker1"})
    assert set(before.values()) == {"worker1", "worker2"}


def test_a_registered_worker_that_joins_is_leased(app, members):
    router = app.conf.task_routes
    router.register_worker("worker1")
    router.register_worker("worker2")
    members.join(["worker1"], "t1", record(2))
    queue_of(app)
    assert router.ring.weights == {"worker1": 2, "worker2": 1}
    members.leave("worker1", "t1")
    eventually(lambda: queue_of(app) and set(router.ring) == {"worker2"})


def test_a_retry_out_of_a_companion_queue_goes_to_the_owner_of_today(app, members):
    """Another package may have taken it to ``worker1.wake``; a queue that is none of the worker's own stays."""
    members.join(["worker1"], "t1", Member("", "up", companions=(".wake",)).record())
    task, route = app.tasks["order"], app.amqp.Router().route
    headers = route({}, "order", ("c1",), {}, task)["headers"]
    members.leave("worker1", "t1")
    members.join(["worker2"], "t2", record())
    eventually(lambda: queue_of(app) == "worker2")
    for queue, expected in (("worker1.wake", "worker2"), ("worker1.other", "worker1.other")):
        options = {"queue": queue, "headers": headers}
        assert route(options, "order", ("c1",), {}, task)["queue"].name == expected


def test_a_call_to_a_dead_worker_by_its_name_is_marked_as_chosen(app, members):
    for number in (1, 2):
        members.join([f"worker{number}"], f"t{number}", record())
    members.leave("worker1", "t1")
    routed = app.amqp.Router().route({"queue": "worker1"}, "order", ("c1",), {}, app.tasks["order"])
    assert routed["headers"]["chain_router"] == {"queue": "worker1", "pinned": True}


def test_when_all_are_gone_their_queues_keep_the_calls(app, members):
    for number in (1, 2):
        members.join([f"worker{number}"], f"t{number}", record())
    queue_of(app)
    for number in (1, 2):
        members.leave(f"worker{number}", f"t{number}")
    router = app.conf.task_routes
    eventually(lambda: queue_of(app) and len(router.sharing.view.in_state("gone")) == 2)
    assert {queue_of(app, key) for key in KEYS} == {"worker1", "worker2"}


def test_unregistering_holds_for_this_process(app, members):
    for number in (1, 2):
        members.join([f"worker{number}"], f"t{number}", record())
    queue_of(app)
    router = app.conf.task_routes
    assert router.unregister_worker("worker1")
    assert {queue_of(app, key) for key in KEYS} == {"worker2"}
    router.register_worker("worker1")
    assert {queue_of(app, key) for key in KEYS} == {"worker1", "worker2"}


def test_a_call_waits_for_no_answer_and_sends_nothing(app, members, redis_client):
    """After the first, a thousand calls send at most one script per second, and that in another thread."""
    members.join(["worker1"], "t1", record())
    queue_of(app)
    before = redis_client.info("commandstats")["cmdstat_evalsha"]["calls"]
    began = time.monotonic()
    for key in range(1000):
        queue_of(app, f"c{key}")
    seconds = time.monotonic() - began
    after = redis_client.info("commandstats")["cmdstat_evalsha"]["calls"]
    assert after - before <= seconds + 1


def test_a_dead_server_leaves_the_last_ring(app, members, redis_server, caplog):
    caplog.set_level("INFO")
    members.join(["worker1"], "t1", record())
    router = app.conf.task_routes
    assert queue_of(app) == "worker1"
    redis_server.kill()
    eventually(lambda: queue_of(app) == "worker1" and "chain_router_ring_stale" in caplog.text)
    assert caplog.text.count("chain_router_ring_stale") == 1
    redis_server.start()
    eventually(lambda: queue_of(app) == "worker1" and "chain_router_ring_fresh" in caplog.text)
    # The server came back empty: the last ring serves until a worker gives a sign of life.
    assert set(router.ring) == {"worker1"}
    members.join(["worker2"], "t2", record())
    eventually(lambda: queue_of(app) == "worker2")


def test_a_failover_to_an_older_copy_is_mended_by_the_next_signs_of_life(app, members, redis_client):
    """Nobody goes back to the older table meanwhile: the members of then may be dead by now."""
    members.join(["worker1"], "t1", record())
    members.join(["worker2"], "t2", record())
    older = {key: redis_client.dump(key) for key in redis_client.keys("*")}
    members.leave("worker2", "t2")
    members.join(["worker3"], "t3", record())
    router = app.conf.task_routes
    eventually(lambda: queue_of(app) and set(router.ring) == {"worker1", "worker3"})
    redis_client.flushall()
    for key, value in older.items():
        redis_client.restore(key, 60_000, value, replace=True)
    for _ in range(3):
        router.sharing.refresh()
        assert set(router.ring) == {"worker1", "worker3"}
    members.join(["worker3"], "t3", record())
    eventually(lambda: queue_of(app) and set(router.ring) == {"worker1", "worker2", "worker3"})
    # The one that had left gives no sign of life.
    redis_client.zadd(members.key_space.key("ends"), {"worker2": 1})
    members.join(["worker1"], "t1", record())
    eventually(lambda: queue_of(app) and set(router.ring) == {"worker1", "worker3"})


def test_a_server_that_never_answered_leaves_the_registered_workers(app, redis_server):
    redis_server.kill()
    assert queue_of(app) == "celery"
    app.conf.task_routes.register_worker("worker1")
    assert queue_of(app) == "worker1"


def test_a_forked_child_follows_by_itself(app, members):
    members.join(["worker1"], "t1", record())
    queue_of(app)
    router = app.conf.task_routes
    pid = os.fork()
    if pid == 0:
        try:
            eventually(lambda: queue_of(app) and set(router.ring) == {"worker1", "worker2"})
        except BaseException:
            os._exit(1)
        os._exit(0)
    members.join(["worker2"], "t2", record())
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_sharing_can_be_switched_off(app, members):
    app.conf.chain_router_discovery = False
    members.join(["worker1"], "t1", record())
    assert queue_of(app) == "celery"
    assert app.conf.task_routes.sharing is None


def test_a_wrong_setting_is_logged_by_a_producer_and_raised_where_asked(app, caplog):
    app.conf.chain_router_lease = -3
    assert queue_of(app) == "celery"
    assert "chain_router_not_shared" in caplog.text
    with pytest.raises(InvalidParameter, match="chain_router_lease"):
        ChainRouter().attach(app)


def test_a_call_by_bare_name_shares_too(app, members):
    members.join(["worker1"], "t1", record())
    app.set_current()
    try:
        assert app.amqp.Router().route({}, "unknown", ("a",), {})["queue"].name == "worker1"
    finally:
        app.close()


def test_what_was_kept_for_a_worker_that_is_gone_goes_to_the_owner_of_today(app, members):
    router, ring = app.conf.task_routes, {}
    for name in ("w1", "w2", "w3"):
        members.join([name], name, record())
    queue_of(app)
    for key in KEYS:
        ring.setdefault(router.get_worker_for_key(key), []).append(key)
    members.leave("w1", "w1")
    router.sharing.refresh()

    def kept(queue, mark=None):
        return forwarded(app, queue, {HEADER: mark} if mark else {})

    for key in KEYS:
        hashed = Mark("w1", router.hash_function(key_bytes(key))).header()
        queue, changes = kept("w1.wake", hashed)
        assert queue == f"{router.get_worker_for_key(key)}.wake"
        assert Mark.read(changes).queue == router.get_worker_for_key(key)
    # What has no key leaves only a queue that nobody consumes; what its caller has sent to a worker waits for it.
    assert {kept("w1")[0] for _ in range(100)} == {"w2", "w3"}
    assert kept("w2") == ("w2", {})
    assert kept("w1", Mark("w1").header()) == ("w1", {})
    assert kept("celery.wake") == ("celery.wake", {})
