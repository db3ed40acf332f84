"""Checks of how workers run, and of who consumes what."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Any

from .case import check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .case import Case

#: Processes for each core above which they mostly wait for one another.
_CROWD = 4


@check("soft-shutdown")
def soft_shutdown(case: Case) -> Iterator[str]:
    """A worker that is ended in the middle of its tasks loses or repeats them."""
    for where, seconds in case.setting_everywhere("worker_soft_shutdown_timeout"):
        if not seconds:
            yield (
                f"worker_soft_shutdown_timeout is 0{where}: a second signal kills running tasks at once; give the "
                "seconds that most tasks need"
            )


@check("soft-shutdown-idle", "advice")
def soft_shutdown_on_idle(case: Case) -> Iterator[str]:
    """Tasks that wait in memory for their eta are in no queue."""
    for where, on in case.setting_everywhere("worker_enable_soft_shutdown_on_idle"):
        if case.is_redis and not on:
            yield (
                f"worker_enable_soft_shutdown_on_idle is off{where}: tasks that wait for their eta come back only "
                "after the visibility timeout"
            )


@check("children", "advice", looks=True)
def children(case: Case) -> Iterator[str]:
    """What a library leaks goes back at the end of a process."""
    for node, conf in case.confs.items():
        if not conf.get("worker_max_tasks_per_child") and not conf.get("worker_max_memory_per_child"):
            yield f"worker {node} never renews its processes: what leaks stays; set worker_max_tasks_per_child"


@check("concurrency", "advice", looks=True)
def concurrency(case: Case) -> Iterator[str]:
    """More processes than cores help only while they wait."""
    cores = os.cpu_count() or 1
    for node, pool in case.pools:
        number = pool.get("max-concurrency", 0)
        if "prefork" in str(pool.get("implementation", "")) and number > _CROWD * cores:
            yield f"worker {node} has {number} processes, for {cores} cores here; for work that waits take threads"


@check("node-names", looks=True)
def node_names(case: Case) -> Iterator[str]:
    """Two workers with one name look like one to monitors and to remote control."""
    for node, number in sorted(Counter(case.nodes).items()):
        if number > 1:
            yield f"{number} workers are called {node}; give each its own name: -n heavy@%h"


@check("queues-consumed", looks=True)
def queues_consumed(case: Case) -> Iterator[str]:
    """What waits in a queue without a worker waits for ever."""
    if case.broker_error:
        return
    for name, who in sorted(_sent_to(case).items()):
        if name not in case.consumed:
            yield f"no worker consumes the queue {name}, to which {who} is sent; start one with -Q {name}"


def _sent_to(case: Case) -> dict[str, str]:
    """The queues that something is sent to, each with one example."""
    found: dict[str, str] = {str(case.conf.task_default_queue): "what has no route"}
    for task in case.tasks:
        found.setdefault(_queue_of(case, task.name), task.name)
    for entry in (case.conf.beat_schedule or {}).values():
        options = entry.get("options") or {}
        name = str(options["queue"]) if "queue" in options else _queue_of(case, entry["task"])
        found.setdefault(name, f"the periodic {entry['task']}")
    return found


def _queue_of(case: Case, task_name: str) -> str:
    task: Any = case.app.tasks.get(task_name)
    route = case.app.amqp.router.route({}, task_name, (), {}, task)
    queue = route.get("queue")
    if queue is None:
        return str(case.conf.task_default_queue)
    return str(getattr(queue, "name", queue))
