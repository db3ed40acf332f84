"""Replaying a trace: the shipped scripts decide on a real server, only the time is made up."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any, Literal, get_args
from uuid import uuid4

from celery_toolkit_core.keys import KeySpace

from .backlog import Backlog, client_of, queue_of
from .entries import Report, Submission
from .pictures import Wait

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .traces import Arrival

#: ``fifo``: one line for all, as plain Celery has. ``lru``: each client a line, all turns weigh the same.
#: ``fair``: with the weights and costs of the trace; by running time where it names no cost.
Policy = Literal["fifo", "lru", "fair"]
POLICIES: tuple[Policy, ...] = get_args(Policy)

_QUEUE = queue_of("", "simulation")
_LEASE = 24 * 3600.0
#: Seconds after which the keys of a simulation that was killed are gone, and turns between two such promises.
_KEPT, _RENEWED = 600, 100


def simulate(client: Any, prefix: str, trace: Sequence[Arrival], policy: Policy, *, workers: int) -> list[Wait]:
    """Replay a trace.

    Args:
        client: A Redis client; the simulation has keys of its own there and removes them.
        prefix: What they begin with.
        trace: The tasks, in the order of time.
        policy: Who is served next.
        workers: How many tasks run at a time.

    Returns:
        The wait of each task, in the order of their turns.
    """
    backlog = Backlog(client, KeySpace(prefix, f"simulation-{uuid4().hex}"))
    try:
        return _replay(backlog, trace, policy, workers)
    finally:
        client.delete(*backlog.keys)


def _replay(backlog: Backlog, trace: Sequence[Arrival], policy: Policy, workers: int) -> list[Wait]:
    waits: list[Wait] = []
    running: list[tuple[float, int, Report]] = []
    reports: list[Report] = []
    begin, sent = (trace[0].at if trace else 0.0), 0
    while sent < len(trace) or running:
        now = min(
            trace[sent].at if sent < len(trace) else float("inf"),
            running[0][0] if running else float("inf"),
        )
        while running and running[0][0] <= now:
            reports.append(heapq.heappop(running)[2])
        while sent < len(trace) and trace[sent].at <= now:
            backlog.enqueue(_submission(trace[sent], sent, policy))
            sent += 1
        while len(running) < workers:
            claimed = backlog.claim(
                _QUEUE, uuid4().hex, uuid4().hex, lease=_LEASE, max_attempts=1, reports=reports
            ).claimed
            reports = []
            if claimed is None:
                break
            arrival = trace[int(claimed.message)]
            report = Report("end", claimed.entry, claimed.token, "done", repr(arrival.seconds))
            heapq.heappush(running, (now + arrival.seconds, len(waits), report))
            waits.append(Wait(arrival.client, arrival.at - begin, now - begin))
            if len(waits) % _RENEWED == 1:
                for key in backlog.keys:
                    backlog.client.expire(key, _KEPT)
    return waits


def _submission(arrival: Arrival, number: int, policy: Policy) -> Submission:
    label = "all" if policy == "fifo" else arrival.client
    fair = policy == "fair"
    return Submission(
        message=str(number).encode(),
        queue=_QUEUE,
        address=b"",
        client=client_of(label),
        label=label,
        cost=(arrival.cost or "runtime") if fair else 1.0,
        weight=arrival.weight if fair else None,
    )
