"""Who has which share, who is entitled to which, and who waits how long."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .application import ranch_of
from .clients import Clients
from .history import runs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from celery import Celery


@dataclass(frozen=True, slots=True)
class Standing:
    """One client that has work, or had some lately.

    Attributes:
        lru_key: The client.
        backlog: Its tasks that wait or are scheduled.
        in_flight: Its tasks that workers have.
        wait_p50: The median of how long its last tasks waited, in seconds; None when none ran.
        wait_p95: The 95th percentile of the same.
        entitled: Its share by weight among the clients shown.
        received: Its part of all cost that was served.
    """

    lru_key: str
    backlog: int
    in_flight: int
    wait_p50: float | None
    wait_p95: float | None
    entitled: float
    received: float


@dataclass(frozen=True, slots=True)
class Standings:
    """All of them, the longest backlog first.

    Attributes:
        clients: One for each client.
        jain: Jain's index over received / entitled of the clients that have a backlog: 1 when all get what they are
            entitled to, 1/n when one gets all. None with fewer than two such clients.
        seconds: What the waits and shares are about: the last so many seconds, or fewer.
    """

    clients: list[Standing]
    jain: float | None
    seconds: float


def standings(app: Celery, *, window: float = 60.0) -> Standings:
    """Read them. Reads all clients page by page: for people and for now and then.

    Args:
        app: The Celery application.
        window: Seconds to look back; at most the last 10,000 tasks count.
    """
    backlog = ranch_of(app).backlog
    seconds, microseconds = backlog.client.time()
    waits: dict[str, list[float]] = defaultdict(list)
    served: dict[str, float] = defaultdict(float)
    for run in runs(backlog, since=seconds + microseconds / 1e6 - window):
        waits[run.client].append(run.waited)
        served[run.client] += run.cost
    shown = [seen for seen in Clients(app).all() if seen["waiting"] or seen["in_flight"] or seen["digest"] in waits]
    claims = {seen["digest"]: 1.0 / (seen["weight_by_function"] or seen["weight"]) for seen in shown}
    entitled, received = sum(claims.values()), sum(served.values())
    rows = [
        Standing(
            lru_key=seen["lru_key"],
            backlog=seen["waiting"],
            in_flight=seen["in_flight"],
            wait_p50=percentile(waits[seen["digest"]], 50),
            wait_p95=percentile(waits[seen["digest"]], 95),
            entitled=claims[seen["digest"]] / entitled,
            received=served[seen["digest"]] / received if received else 0.0,
        )
        for seen in shown
    ]
    rows.sort(key=lambda row: (-row.backlog, -row.in_flight, row.lru_key))
    return Standings(rows, jain([row.received / row.entitled for row in rows if row.backlog]), window)


def jain(shares: Iterable[float]) -> float | None:
    """Jain's fairness index; None where there is nothing to compare.

    Source: R. Jain, D. Chiu, W. Hawe, "A Quantitative Measure of Fairness and Discrimination", DEC-TR-301, 1984.
    """
    values = list(shares)
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if len(values) > 1 and squares else None


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The smallest value that at least `percent` of all do not exceed; None without values."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def rows_of(found: Standings) -> list[dict[str, Any]]:
    """The standings as rows of a table."""
    return [
        {
            "client": row.lru_key,
            "backlog": row.backlog,
            "in_flight": row.in_flight,
            "wait_p50": _seconds(row.wait_p50),
            "wait_p95": _seconds(row.wait_p95),
            "entitled": f"{row.entitled:.1%}",
            "received": f"{row.received:.1%}",
        }
        for row in found.clients
    ]


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}s"
