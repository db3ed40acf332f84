"""The chapters of the tour, in order; each checks what it promises and returns its pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from celery_toolkit_core.errors import InvalidParameter
from celery_toolkit_core.parameters import nearest

from . import monitoring, pieces, pools, ring

if TYPE_CHECKING:
    from ..stage import Stage


@dataclass(frozen=True, slots=True)
class Chapter:
    """One chapter: its name for ``--only``, what it is called, what it promises, and what happens in it."""

    name: str
    title: str
    promise: str
    play: Callable[[Stage], list[str]]


CHAPTERS = (
    Chapter("queues", "Two queues, two pools", "A task waits for the pool of its kind.", pools.two_queues),
    Chapter("chain", "Heavy, then light", "One chain, two steps, two pools.", pools.heavy_then_light),
    Chapter("bulk", "Many chains at once", "The queues fill and drain before your eyes.", pools.many_chains),
    Chapter("unique", "heimdall: ten clicks on one report", "Ten clicks, one run, one id.", pieces.ten_clicks),
    Chapter("limit", "heimdall: an API that allows five calls a second", "Never one more.", pieces.limited_api),
    Chapter(
        "fair",
        "ranch: a bulk import beside three people",
        "Nobody waits for a crowd that came earlier.",
        pieces.fair_turns,
    ),
    Chapter(
        "route",
        "chain-router: customers on their workers",
        "The same customer, the same worker, and another one when that is killed.",
        ring.same_customer_same_worker,
    ),
    Chapter(
        "together",
        "All at once",
        "One task: heavy, unique, limited, fair, routed, and the head of a chain.",
        ring.all_at_once,
    ),
    Chapter("monitor", "Who watches?", "What Prometheus is told is what happened.", monitoring.watched),
)


def chosen(only: Sequence[str] = ()) -> list[tuple[int, Chapter]]:
    """The chapters of these names or numbers with their numbers, in order; by default all.

    Raises:
        InvalidParameter: There is no such chapter.
    """
    numbered = list(enumerate(CHAPTERS, 1))
    names = [chapter.name for chapter in CHAPTERS]
    for name in only:
        if name not in names and name not in {str(number) for number, _ in numbered}:
            hint = nearest(name, names) or f": one of {', '.join(names)}, or its number"
            raise InvalidParameter("only", name, f"no such chapter{hint}")
    return [(number, each) for number, each in numbered if not only or {each.name, str(number)} & set(only)]
