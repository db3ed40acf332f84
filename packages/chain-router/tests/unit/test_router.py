"""The router as an object: registration, lookup, what it answers to Celery."""

from __future__ import annotations

from uuid import UUID

import pytest
from celery import Celery
from hypothesis import given
from hypothesis import strategies as st

from celery_chain_router import ChainRouter
from celery_toolkit_core.errors import InvalidParameter

KEYS = [f"c{index}" for index in range(2000)]


def make(*workers: str, **options) -> ChainRouter:
    router = ChainRouter(**{"routing_key": "customer_id", **options})
    for worker in workers or ("worker1", "worker2", "worker3"):
        router.register_worker(worker)
    return router


def test_without_workers_the_default_queue_is_left_to_celery():
    router = ChainRouter()
    assert router.route_task("t", ("a",)) is None
    assert router("t", ("a",), {}, {}) is None
    assert router.get_worker_for_key("a") is None
    assert router.get_stats() == {}


def test_registration_returns_the_positions_and_is_idempotent():
    router = ChainRouter(virtual_nodes=40)
    positions = router.register_worker("worker1")
    assert len(positions) == 40
    assert router.register_worker("worker1") == positions
    assert router.worker_positions == {"worker1": positions}


def test_state_belongs_to_the_instance():
    make("worker1")
    assert ChainRouter().worker_positions == {}


def test_a_call_goes_where_its_key_goes():
    router = make()
    for key in KEYS[:100]:
        assert router.route_task("t", (), {"customer_id": key}) == {"queue": router.get_worker_for_key(key)}
        assert router("t", (), {"customer_id": key}, {}, task=None) == {"queue": router.get_worker_for_key(key)}


def test_statistics_count_the_calls_of_each_worker():
    router = make()
    routed = [router.route_task("t", (), {"customer_id": key})["queue"] for key in KEYS[:300]]
    router.get_worker_for_key("c1")
    assert router.get_stats() == {worker: routed.count(worker) for worker in ("worker1", "worker2", "worker3")}


def test_only_the_keys_of_a_removed_worker_move():
    router = make()
    before = {key: router.get_worker_for_key(key) for key in KEYS}
    assert router.unregister_worker("worker2") is True
    assert router.unregister_worker("worker2") is False
    for key, worker in before.items():
        now = router.get_worker_for_key(key)
        assert now == worker or worker == "worker2"
        assert now != "worker2"


def test_a_heavier_worker_owns_more():
    router = make("worker1", "worker2")
    router.register_worker("worker2", weight=3)
    share = router.ring.shares()["worker2"]
    assert 0.65 < share < 0.85


@given(st.permutations(["w1", "w2", "w3", "w4", "w5"]), st.lists(st.text() | st.integers() | st.binary(), max_size=20))
def test_the_order_of_registration_does_not_matter(order, keys):
    one, other = make(*order), make("w1", "w2", "w3", "w4", "w5")
    assert one.ring.fingerprint == other.ring.fingerprint
    assert [one.get_worker_for_key(key) for key in keys] == [other.get_worker_for_key(key) for key in keys]


def test_keys_of_different_types_are_distinct_and_stable():
    router = make(*[f"w{index}" for index in range(100)])
    keys = ["1", 1, b"1", True, UUID(int=1)]
    hashes = {router._hash("t", (), {"customer_id": key}) for key in keys}
    assert len(hashes) == 5


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"virtual_nodes": 0}, "virtual_nodes"),
        ({"virtual_nodes": -1}, "virtual_nodes"),
        ({"virtual_nodes": 1.5}, "virtual_nodes"),
        ({"virtual_nodes": True}, "virtual_nodes"),
        ({"virtual_nodes": 10_001}, "virtual_nodes"),
        ({"routing_key": ""}, "routing_key"),
        ({"routing_key": 7}, "routing_key"),
        ({"routing_key_extractor": "customer_id"}, "routing_key_extractor"),
        ({"persistent_file": ""}, "persistent_file"),
        ({"persistent_file": 3}, "persistent_file"),
        ({"reset_persistent": "yes"}, "reset_persistent"),
        ({"balance": 1.03}, "balance"),
        ({"balance": 2.1}, "balance"),
        ({"balance": "even"}, "balance"),
        ({"balance": True}, "balance"),
        ({"balance": float("nan")}, "balance"),
        ({"balance": 1.1, "virtual_nodes": 200}, "balance"),
        ({"balance": 1.1, "mode": "partition"}, "balance"),
        ({"hash": "md5"}, "hash"),
        ({"mode": "rings"}, "mode"),
    ],
)
def test_a_parameter_that_cannot_be_meant_is_named(parameters, named):
    with pytest.raises(InvalidParameter) as caught:
        ChainRouter(**parameters)
    assert caught.value.parameter == named


@pytest.mark.parametrize("name", ["", "a\nb", "a\x00b", "a{b}", "x" * 201, " a", "a,b", None, 3, b"w"])
def test_a_name_that_cannot_be_a_queue_is_refused(name):
    with pytest.raises(InvalidParameter, match="worker name"):
        ChainRouter().register_worker(name)


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf"), 101, "2", True, None])
def test_a_weight_without_bound_is_refused(weight):
    """An unbounded weight was a way to fill a proxy's memory elsewhere."""
    router = ChainRouter()
    with pytest.raises(InvalidParameter, match="weight"):
        router.register_worker("w1", weight=weight)
    assert router.worker_positions == {}


def test_the_balance_that_was_asked_for_is_kept():
    """The busiest of ten workers owns at most so many times its fair share, whatever their names are."""
    for balance, rounds in ((1.1, 6), (1.05, 1)):
        for number in range(rounds):
            names = [f"host-{number}-{each}" for each in range(10)]
            router = make(*names, balance=balance)
            assert max(router.ring.shares().values()) * 10 <= balance
            keys = [router.get_worker_for_key(key) for key in KEYS]
            assert router.unregister_worker(names[0])
            moved = {before for before, key in zip(keys, KEYS, strict=True) if before != router.get_worker_for_key(key)}
            assert moved == {names[0]}


def test_points_are_bounded_by_the_product():
    with pytest.raises(InvalidParameter, match="virtual_nodes"):
        ChainRouter(virtual_nodes=10_000).register_worker("w1", weight=100)


def test_celery_passes_options_and_task_to_it():
    """With an attribute ``route_for_task`` it would pass neither."""
    assert callable(ChainRouter())
    assert not hasattr(ChainRouter(), "route_for_task")


@pytest.fixture
def app():
    app = Celery("routed", broker="memory://")

    @app.task(name="order", shared=False)
    def order(order_id, customer_id):
        """A task with the key in the second place."""

    app.finalize()
    yield app
    app.close()


def route(app: Celery, args=(), kwargs=None, **options):
    task = app.tasks["order"]
    return app.amqp.Router().route(options, "order", args, kwargs or {}, task)


def test_positional_and_keyword_arguments_go_to_the_same_worker(app):
    """celery-chain-router 0.2 parted 178 of 200 such pairs."""
    app.conf.task_routes = router = make()
    for key in KEYS[:200]:
        expected = router.get_worker_for_key(key)
        assert route(app, ("o1", key))["queue"].name == expected
        assert route(app, ("o1",), {"customer_id": key})["queue"].name == expected
        assert route(app, (), {"customer_id": key, "order_id": "o2"})["queue"].name == expected


def test_a_router_in_a_list_takes_its_turn(app):
    router = make()
    app.conf.task_routes = [{"other": {"queue": "x"}}, router]
    assert route(app, ("o1", "c1"))["queue"].name == router.get_worker_for_key("c1")


@pytest.mark.parametrize("options", [{"queue": "elsewhere"}, {"exchange": "e"}, {"routing_key": "r"}])
def test_a_chosen_destination_stays(app, options):
    app.conf.task_routes = make()
    routed = route(app, ("o1", "c1"), **options)
    queue = routed.get("queue")
    assert getattr(queue, "name", queue) == options.get("queue", "celery" if "queue" not in options else None)
    for name in ("exchange", "routing_key"):
        assert routed.get(name) == options.get(name)


def test_a_chosen_worker_stays_and_is_marked_as_chosen(app):
    app.conf.task_routes = router = make()
    for worker in router.worker_positions:
        routed = route(app, ("o1", "c1"), queue=worker)
        assert routed["queue"].name == worker
        assert routed["headers"]["chain_router"] == {"queue": worker, "pinned": True}
        # Its retry carries the mark and stays, too.
        assert route(app, ("o1", "c1"), queue=worker, headers=routed["headers"])["queue"].name == worker


def test_a_retry_goes_to_the_owner_of_today(app):
    app.conf.task_routes = router = make()
    first = route(app, ("o1", "c1"), headers={"mine": 1})
    old = first["queue"].name
    assert first["headers"]["mine"] == 1
    router.unregister_worker(old)
    again = route(app, ("o1", "c1"), queue=old, headers=first["headers"])
    assert again["queue"].name == router.get_worker_for_key("c1") != old
    assert again["headers"]["chain_router"]["queue"] == again["queue"].name
    # A retry whose caller names another queue goes there.
    assert route(app, ("o1", "c1"), queue="special", headers=first["headers"])["queue"].name == "special"


def test_a_retry_by_exchange_goes_to_the_owner_of_today(app):
    """Where a queue has an exchange of its own, Celery's retry names that instead of the queue."""
    app.conf.task_routes = router = make()
    first = route(app, ("o1", "c1"))
    queue = first["queue"]
    router.unregister_worker(queue.name)
    again = route(
        app, ("o1", "c1"), exchange=queue.exchange.name, routing_key=queue.routing_key, headers=first["headers"]
    )
    assert again["queue"].name == router.get_worker_for_key("c1")
    assert not again.get("exchange")
    assert not again.get("routing_key")


def test_the_callers_headers_are_not_changed(app):
    app.conf.task_routes = make()
    headers = {"mine": 1}
    route(app, ("o1", "c1"), headers=headers)
    assert headers == {"mine": 1}


@pytest.mark.parametrize(
    "mark", [None, 3, "x", {}, {"queue": 3}, {"queue": "worker1"}, {"queue": "worker1", "key": "zz"}]
)
def test_a_mark_that_makes_no_sense_is_no_mark(app, mark):
    app.conf.task_routes = router = make()
    assert route(app, ("o1", "c1"), queue="worker1", headers={"chain_router": mark})["queue"].name == "worker1"
    expected = router.get_worker_for_key("c1")
    assert route(app, ("o1", "c1"), headers={"chain_router": mark})["queue"].name == expected


def test_worker_queues_exist_where_missing_queues_are_not_created(app):
    app.conf.task_create_missing_queues = False
    app.conf.task_routes = router = make()
    assert route(app, ("o1", "c1"))["queue"].name == router.get_worker_for_key("c1")


def test_routing_never_raises(caplog):
    class Hostile(dict):
        def get(self, *_):
            raise RuntimeError("no")

    assert make()("t", (), {}, Hostile(), task=None) is None
    assert "chain_router_failed" in caplog.text
