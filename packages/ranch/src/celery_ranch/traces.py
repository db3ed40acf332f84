"""Traces: which client sent a task when, and how long it ran. One JSON document a line."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from celery_toolkit_core import parameters
from celery_toolkit_core.errors import InvalidParameter

from .clients import Clients
from .history import runs
from .options import check_key, check_weight

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from celery import Celery

    from .backlog import Backlog


@dataclass(frozen=True, slots=True)
class Arrival:
    """One task of a trace.

    Attributes:
        at: When it was sent, in seconds from any moment.
        client: Whose it is.
        seconds: How long it runs.
        weight: The client's weight.
        cost: What its turn costs; None for the seconds that it runs.
    """

    at: float
    client: str
    seconds: float
    weight: float = 1.0
    cost: float | None = None

    @classmethod
    def of(cls, value: Any) -> Arrival:
        """Read one.

        Raises:
            InvalidParameter: It is none, or a value is impossible.
        """
        if not isinstance(value, dict) or not {"at", "client", "seconds"} <= set(value) <= set(cls.__slots__):
            raise InvalidParameter("trace", value, "give an object with at, client, seconds; optional are weight, cost")
        cost = value.get("cost")
        return cls(
            parameters.number("at", value["at"]),
            check_key(value["client"]),
            parameters.positive("seconds", value["seconds"], zero=True),
            check_weight("weight", value.get("weight", 1.0)),
            None if cost is None else check_weight("cost", cost),
        )


def read_trace(lines: Iterable[str]) -> list[Arrival]:
    """The trace in some lines, in the order of time.

    Raises:
        InvalidParameter: A line cannot be read.
    """
    trace = []
    for line in lines:
        if line.strip():
            try:
                value = json.loads(line)
            except ValueError:
                raise InvalidParameter("trace", line, "give one JSON object a line") from None
            trace.append(Arrival.of(value))
    return sorted(trace, key=lambda arrival: arrival.at)


def recorded(app: Celery, backlog: Backlog) -> Iterator[str]:
    """What Redis remembers of the last tasks, as the lines of a trace, newest first."""
    known = {seen["digest"]: seen for seen in Clients(app).all()}
    for run in runs(backlog):
        client = known.get(run.client)
        if client is not None:
            sent = run.ended - run.ran - run.waited
            yield json.dumps(asdict(Arrival(round(sent, 3), client["lru_key"], run.ran, client["weight"])))


def example() -> list[Arrival]:
    """A bulk import of 300 tasks, and four people who want something now and then while it runs."""
    bulk = [Arrival(0.0, "bulk import", 0.2) for _ in range(300)]
    people = ("alice", "bob", "carol", "dave")
    asked = [Arrival(1.0 + 0.7 * turn, people[turn % len(people)], 0.2) for turn in range(20)]
    return sorted([*bulk, *asked], key=lambda arrival: arrival.at)
