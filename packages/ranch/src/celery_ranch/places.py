"""Where single tasks are, for a person who asks, and what that person decides about dead ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .entries import Tickets, tickets_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .backlog import Backlog

#: Entries read in one page.
_PAGE = 500


@dataclass(frozen=True, slots=True)
class Place:
    """Where one entry is; `a` and `b` as ``lua/describe.lua`` says for each state."""

    entry: str
    task_id: str
    name: str
    lru_key: str
    attempts: int
    enqueued: float
    state: str
    a: str
    b: str


def find(backlog: Backlog, task_id: str) -> list[Place]:
    """Where the entries of a task are. Reads all entries page by page: for a person, not for a program."""
    found: list[Place] = []
    cursor = 0
    while True:
        cursor, page = backlog.client.hscan(backlog.key("entries"), cursor, count=_PAGE)
        # Only those that mention the id are worth a look.
        wanted = [entry for entry, stored in page.items() if task_id.encode() in stored]
        if wanted:
            found += [place for place in _describe(backlog, *wanted) if place.task_id == task_id]
        if not cursor:
            return found


@dataclass(frozen=True, slots=True)
class Away:
    """A task that another control has taken from a worker; `why` is its word, `since` in seconds by Redis' clock."""

    lru_key: str
    why: str
    since: float


def find_away(backlog: Backlog, task_id: str) -> Away | None:
    """Whether another control has a task, as far as ranch was told."""
    found = backlog.run("away", [task_id])
    return Away(found[0].decode(), found[1].decode(), float(found[2]) / 1000) if found else None


def dead(backlog: Backlog, most: int = 1000) -> list[Place]:
    """The entries that will not be tried again: lost with too many workers, or unreadable; each oldest first."""
    return _describe(backlog, most=most)


def decide(backlog: Backlog, decision: str, entries: Sequence[str]) -> tuple[int, list[Tickets]]:
    """``retry`` or ``drop`` dead entries: how many were, and tickets to publish."""
    decided, tickets = backlog.run("decide", [decision, *entries])
    return int(decided), tickets_of(tickets)


def _describe(backlog: Backlog, *entries: bytes, most: int = 1000) -> list[Place]:
    return [
        Place(
            entry=row[0].decode(),
            task_id=row[1].decode(),
            name=row[2].decode(),
            lru_key=row[3].decode(),
            attempts=int(row[5]),
            enqueued=int(row[6]) / 1000,
            state=row[7].decode(),
            a=row[8].decode(),
            b=row[9].decode(),
        )
        for row in backlog.run("describe", [most, *entries])
    ]
