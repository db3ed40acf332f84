"""Partition mode in a producer: a pure function of the key, and nothing else."""

from __future__ import annotations

from collections import Counter

import pytest
from celery import Celery

from celery_chain_router import ChainRouter
from celery_chain_router.mark import HEADER, Mark
from celery_chain_router.partitions import Partitions
from celery_toolkit_core.errors import InvalidParameter


def test_a_key_goes_to_the_same_queue_whatever_the_process():
    """Fixed values: another release, machine or hash seed must not move a key."""
    router = ChainRouter(mode="partition")
    assert [router.get_worker_for_key(f"c{number}") for number in range(4)] == [
        "chain.30",
        "chain.16",
        "chain.1",
        "chain.22",
    ]


def test_every_hash_has_a_queue():
    partitions = Partitions(3)
    assert [partitions.at(position) for position in (0, 2**64 // 3, 2**64 - 1)] == ["chain.0", "chain.0", "chain.2"]
    assert partitions.at(2**64 // 3 + 1) == "chain.1"


def test_keys_spread_evenly():
    router = ChainRouter(mode="partition", partitions=256)
    counts = Counter(router.get_worker_for_key(number) for number in range(100_000))
    assert len(counts) == 256
    # 391 keys each by chance: five standard deviations.
    assert max(counts.values()) < 391 + 5 * 20


def test_a_queue_tells_its_partition():
    partitions = Partitions(20, "shop")
    assert [partitions.number(queue) for queue in ("shop.0", "shop.19", "shop.7.wake")] == [0, 19, 7]
    assert [partitions.number(queue) for queue in ("shop.20", "shop", "celery", "shop.x", "shop.07")] == [None] * 5


def test_a_producer_asks_no_redis():
    """The URL leads nowhere."""
    router = ChainRouter(mode="partition", routing_key="key", partitions=8)
    with Celery(broker="redis://127.0.0.1:1/0", backend="redis://127.0.0.1:1/0", set_as_current=False) as app:
        app.conf.task_routes = router

        @app.task(name="work", shared=False)
        def work(number, key):
            """A task with a key."""

        options = {}
        route = router("work", (1, "k"), {}, options, task=work)
    assert route == {"queue": router.get_worker_for_key("k")}
    assert Mark.read(options["headers"]).queue == route["queue"]
    assert router.sharing is None


def test_a_retry_stays_in_its_partition_and_a_chosen_queue_is_respected():
    router = ChainRouter(mode="partition")
    queue = router.get_worker_for_key("k")
    sent = {}
    router("work", ("k",), {}, sent)
    again = {"queue": queue, "headers": sent["headers"]}
    assert router("work", ("k",), {}, again) == {"queue": queue}
    assert "queue" not in again
    # Woken by another package, it came from the companion of the queue.
    again = {"queue": f"{queue}.wake", "headers": sent["headers"]}
    assert router("work", ("k",), {}, again) == {"queue": queue}
    pinned = {"queue": "chain.5"}
    assert router("work", ("k",), {}, pinned) is None
    assert pinned["headers"][HEADER] == {"queue": "chain.5", "pinned": True}
    assert router("work", ("k",), {}, {"queue": "elsewhere"}) is None


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"partitions": 0}, "partitions"),
        ({"partitions": 1025}, "partitions"),
        ({"partitions": 8.0}, "partitions"),
        ({"partitions": True}, "partitions"),
        ({"partition_prefix": ""}, "partition_prefix"),
        ({"partition_prefix": "a,b"}, "partition_prefix"),
        ({"on_assign": "later"}, "on_assign"),
        ({"on_revoke": 1}, "on_revoke"),
        ({"virtual_nodes": 10}, "virtual_nodes"),
        ({"persistent_file": "workers.json"}, "persistent_file"),
        ({"reset_persistent": True}, "reset_persistent"),
    ],
)
def test_a_parameter_that_cannot_be_meant_is_named(parameters, name):
    with pytest.raises(InvalidParameter) as caught:
        ChainRouter(mode="partition", **parameters)
    assert caught.value.parameter == name


@pytest.mark.parametrize("name", ["partitions", "partition_prefix", "on_assign", "on_revoke"])
def test_what_belongs_to_partition_mode_is_refused_on_a_ring(name):
    with pytest.raises(InvalidParameter, match=name):
        ChainRouter(**{name: 8})


def test_workers_are_not_registered_by_hand():
    with pytest.raises(InvalidParameter, match="start them"):
        ChainRouter(mode="partition").register_worker("a")
