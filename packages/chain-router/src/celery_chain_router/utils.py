"""Looking at a router before trusting it with production: balance, consistency, what a new worker would move."""

from __future__ import annotations

from collections import Counter
from statistics import mean, pstdev
from typing import TYPE_CHECKING, Any

from celery_toolkit_core.parameters import count

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .router import ChainRouter


def simulate_task_distribution(
    router: ChainRouter, num_tasks: int = 1000, routing_keys: Sequence[Any] | None = None
) -> dict[str, Any]:
    """How many of `num_tasks` calls each worker would get; nothing is sent.

    Args:
        router: The router to ask; its statistics stay as they are.
        num_tasks: Calls to spread.
        routing_keys: Their keys, in turn; by default every call has a key of its own.

    Returns:
        ``worker_counts`` (worker -> calls), ``total_tasks``, ``average_per_worker``, ``std_deviation``,
        ``min_tasks`` and ``max_tasks``.
    """
    count("num_tasks", num_tasks, least=0)
    keys = routing_keys or [f"key-{index}" for index in range(num_tasks)]
    counts = Counter(router.get_worker_for_key(keys[index % len(keys)]) for index in range(num_tasks))
    per_worker = {worker: counts[worker] for worker in router.ring}
    amounts = list(per_worker.values()) or [0]
    return {
        "worker_counts": per_worker,
        "total_tasks": num_tasks,
        "average_per_worker": mean(amounts),
        "std_deviation": pstdev(amounts),
        "min_tasks": min(amounts),
        "max_tasks": max(amounts),
    }


def analyze_routing_consistency(
    router: ChainRouter, routing_keys: Iterable[Any], iterations: int = 100
) -> dict[str, Any]:
    """Whether each key goes to the same worker every time it is asked for.

    Returns:
        ``is_consistent``, ``keys_tested`` and ``inconsistencies`` (key and workers of each that changed).
    """
    count("iterations", iterations)
    keys = list(routing_keys)
    inconsistencies = []
    for key in keys:
        workers = {router.get_worker_for_key(key) for _ in range(iterations)}
        if len(workers) > 1:
            inconsistencies.append({"key": key, "workers": sorted(map(str, workers))})
    return {"is_consistent": not inconsistencies, "keys_tested": len(keys), "inconsistencies": inconsistencies}


def analyze_worker_scaling(router: ChainRouter, new_worker_name: str, sample_keys: Iterable[Any]) -> dict[str, Any]:
    """What share of the sample would move if a worker joined; the router stays as it is.

    Returns:
        ``keys_tested``, ``keys_moved``, ``movement_ratio``, ``expected_ratio`` (1 / workers afterwards) and
        ``efficiency`` (1: exactly the expected share moves; lower: more or less than that).
    """
    keys = list(sample_keys)
    after = router.ring.with_node(new_worker_name)
    moved = sum(router.get_worker_for_key(key) != after.get(key) for key in keys)
    ratio = moved / len(keys) if keys else 0.0
    expected = 1 / len(after)
    return {
        "keys_tested": len(keys),
        "keys_moved": moved,
        "movement_ratio": ratio,
        "expected_ratio": expected,
        "efficiency": 1 - abs(ratio - expected) / expected,
    }


def get_key_distribution(router: ChainRouter, routing_keys: Iterable[Any]) -> dict[str, list[Any]]:
    """Worker -> those of the keys that go to it."""
    found: dict[str, list[Any]] = {worker: [] for worker in router.ring}
    for key in routing_keys:
        worker = router.get_worker_for_key(key)
        if worker is not None:
            found[worker].append(key)
    return found
