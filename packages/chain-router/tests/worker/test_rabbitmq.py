"""On RabbitMQ: the membership in Redis, the messages on the broker."""

from __future__ import annotations

import pytest
from celery import Celery

from celery_chain_router import ChainRouter
from celery_chain_router.membership import Member
from celery_chain_router.orphans import Orphans
from celery_toolkit_testkit import eventually

KEYS = [f"c{index}" for index in range(20)]


@pytest.fixture
def app(rabbitmq_url):
    app = Celery("orphans", broker=rabbitmq_url, set_as_current=False)
    app.conf.chain_router_discovery = False
    router = app.conf.task_routes = ChainRouter()
    router.register_worker("dead")

    @app.task(name="work", shared=False)
    def work(key):
        """A task with a key."""

    app.finalize()
    yield app
    app.close()


def taken(app, queue: str) -> list:
    with app.connection_for_read() as connection, connection.channel() as channel:
        bound = app.amqp.queues[queue](channel)
        bound.declare()
        messages = []
        while message := bound.get(no_ack=True):
            messages.append(message)
        return messages


def test_orphans_are_published_again_and_chosen_ones_stay(app):
    for key in KEYS:
        app.tasks["work"].delay(key)
    app.tasks["work"].apply_async(("k",), queue="dead")
    router = app.conf.task_routes
    router.register_worker("a")
    router.register_worker("b")
    router.unregister_worker("dead")
    orphans = Orphans(app, router.hash_function)
    gone = [Member("dead", "gone", companions=(".wake",))]
    moved = []
    eventually(lambda: moved.append(orphans.adopt(gone, router.ring)) or sum(moved) == len(KEYS))
    for queue in ("a", "b"):
        found = [eval(message.headers["argsrepr"])[0] for message in taken(app, queue)]
        assert found == [key for key in KEYS if router.get_worker_for_key(key) == queue]
    assert [message.headers["argsrepr"] for message in taken(app, "dead")] == ["('k',)"]
    orphans.close()


def test_a_killed_workers_backlog_goes_to_the_others(
    celery_app_module, celery_worker_process, event_log, rabbitmq_url, redis_url, monkeypatch
):
    monkeypatch.setenv("CELERY_BROKER_URL", rabbitmq_url)
    ring_app = celery_app_module("ring_app")
    ring_app.router.attach(ring_app.app)
    workers = [
        celery_worker_process(
            "ring_app", name=name, pool="threads", wait=False, env={"CELERY_BROKER_URL": rabbitmq_url}
        )
        for name in ("a", "b")
    ]
    for worker in workers:
        worker.wait_ready()
    eventually(lambda: set(ring_app.router.ring) == {"a", "b"})
    workers[0].kill()
    for number in range(40):
        ring_app.work.delay(number, KEYS[number % 20])
    done = event_log.wait_for(40, kind="done")
    assert {event["number"] for event in done} == set(range(40))
    assert {event["worker"] for event in done} == {"b"}
