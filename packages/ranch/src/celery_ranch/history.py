"""The last tasks that ran, as Redis remembers them: who waited how long, and who got how much."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .backlog import Backlog

#: Lines read in one round trip.
_PAGE = 1000


class Run(NamedTuple):
    """One task that ran; times in seconds by Redis' clock.

    Attributes:
        ended: When.
        client: Digest of its client.
        queue: Digest of its queue.
        waited: How long it waited for its turn, since it was enqueued or due.
        ran: How long its body ran.
        cost: What its turn cost; with ``lru_cost="runtime"`` the seconds that it ran.
    """

    ended: float
    client: str
    queue: str
    waited: float
    ran: float
    cost: float


def runs(backlog: Backlog, *, since: float = 0.0) -> Iterator[Run]:
    """The last tasks that ran, newest first, as far back as `since`; Redis remembers the last 10,000 or so."""
    start = 0
    while page := backlog.client.lrange(backlog.key("history"), start, start + _PAGE - 1):
        for line in page:
            ended, client, queue, waited, ran, cost = line.decode().split()
            if int(ended) / 1000 < since:
                return
            yield Run(int(ended) / 1000, client, queue, int(waited) / 1000, int(ran) / 1000, float(cost))
        start += _PAGE
