"""The utilities of the seed."""

from __future__ import annotations

import pytest

from celery_chain_router import ChainRouter
from celery_chain_router.utils import (
    analyze_routing_consistency,
    analyze_worker_scaling,
    get_key_distribution,
    simulate_task_distribution,
)
from celery_toolkit_core.errors import InvalidParameter


@pytest.fixture
def router() -> ChainRouter:
    router = ChainRouter(routing_key="customer_id")
    for name in ("worker1", "worker2", "worker3"):
        router.register_worker(name)
    return router


def test_simulation_adds_up(router):
    stats = simulate_task_distribution(router, num_tasks=1000)
    assert sum(stats["worker_counts"].values()) == stats["total_tasks"] == 1000
    assert stats["min_tasks"] == min(stats["worker_counts"].values()) > 0
    assert stats["max_tasks"] == max(stats["worker_counts"].values())
    assert stats["average_per_worker"] == pytest.approx(1000 / 3)
    assert 0 < stats["std_deviation"] < 200
    assert router.get_stats() == dict.fromkeys(("worker1", "worker2", "worker3"), 0)


def test_simulation_with_given_keys_and_with_nothing():
    router = ChainRouter()
    assert simulate_task_distribution(router, 10)["worker_counts"] == {}
    router.register_worker("worker1")
    assert simulate_task_distribution(router, 10, routing_keys=["a", "b"])["worker_counts"] == {"worker1": 10}
    assert simulate_task_distribution(router, 0)["max_tasks"] == 0
    with pytest.raises(InvalidParameter, match="num_tasks"):
        simulate_task_distribution(router, -1)


def test_consistency(router):
    assert analyze_routing_consistency(router, routing_keys=["a", "b", "c"]) == {
        "is_consistent": True,
        "keys_tested": 3,
        "inconsistencies": [],
    }


def test_consistency_is_found_missing():
    class Fickle(ChainRouter):
        def get_worker_for_key(self, key):
            self.turn = not getattr(self, "turn", False)
            return "a" if self.turn else "b"

    found = analyze_routing_consistency(Fickle(), ["k"], iterations=2)
    assert found["inconsistencies"] == [{"key": "k", "workers": ["a", "b"]}]
    assert not found["is_consistent"]


def test_scaling_leaves_the_router_as_it_found_it(router):
    before = router.ring.fingerprint
    found = analyze_worker_scaling(router, "worker4", [f"k{index}" for index in range(4000)])
    assert found["keys_tested"] == 4000
    assert found["expected_ratio"] == 0.25
    assert found["movement_ratio"] == found["keys_moved"] / 4000 == pytest.approx(0.25, abs=0.08)
    assert found["efficiency"] > 0.6
    assert router.ring.fingerprint == before


def test_distribution_holds_every_key_once(router):
    keys = [f"k{index}" for index in range(100)]
    found = get_key_distribution(router, keys)
    assert sorted(key for keys in found.values() for key in keys) == sorted(keys)
    assert all(router.get_worker_for_key(key) == worker for worker, keys in found.items() for key in keys)
