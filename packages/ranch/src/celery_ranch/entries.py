"""What goes into the backlog and comes out of it, as values: submissions, claims, reports, tickets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Admission = Literal["new", "inside", "free", "back"]


class Report(NamedTuple):
    """What a worker tells of an entry it has claimed; see ``lua/settle.lua``."""

    kind: str
    entry: str
    token: str
    a: str = ""
    b: str = ""


class Tickets(NamedTuple):
    """Tickets that somebody has to publish: `number` of them to `address`."""

    address: bytes
    number: int


class Enqueued(NamedTuple):
    """What became of a submission.

    Attributes:
        state: ``waiting``, ``scheduled``, ``again``, ``full`` or ``draining`` (see ``lua/enqueue.lua``).
        waiting: How many tasks of the client wait.
        address: Where its ticket is published.
    """

    state: str
    waiting: int
    address: bytes


@dataclass(frozen=True, slots=True)
class Submission:
    """One task on its way into the backlog.

    Attributes:
        message: The bytes of its Celery message.
        queue: Digest of its queue.
        address: Where tickets of that queue are published; opaque here.
        client: Digest of the client.
        label: The client's key as the user wrote it.
        cost: What one turn costs; ``"runtime"`` for seconds, estimated and later corrected.
        rank: Place inside the client, 0 first.
        delay: Seconds until it is due.
        task_id: Celery's id.
        name: The task's name.
        weighed: The task has a weight function.
        weight: To be kept for the client from now on, if given.
        limit: Most tasks of the client that may wait, if the task's options say so.
        admission: ``new``; ``inside`` when the body of a task of this client sends it: a client that is drained may
            finish what it has begun; ``free`` for a task that was admitted before, such as a retry: no limit counts;
            ``back`` for one that may have been taken away by another control: it also gets its old place again.
    """

    message: bytes
    queue: str
    address: bytes
    client: str
    label: str
    cost: float | str = 1.0
    rank: int = 0
    delay: float = 0.0
    task_id: str = ""
    name: str = ""
    weighed: bool = False
    weight: float | None = None
    limit: int | None = None
    admission: Admission = "new"

    def arguments(self, entry: str) -> list[Any]:
        """The arguments of ``enqueue.lua``."""
        return [
            entry,
            self.message,
            self.queue,
            self.address,
            self.client,
            self.label,
            self.cost if isinstance(self.cost, str) else repr(self.cost),
            self.rank,
            max(0, round(self.delay * 1000)),
            self.task_id,
            self.name,
            "1" if self.weighed else "",
            "" if self.weight is None else repr(self.weight),
            "" if self.limit is None else self.limit,
            self.admission,
        ]


@dataclass(frozen=True, slots=True)
class Claimed:
    """A task that this worker has claimed and must settle.

    Attributes:
        entry: Its id in the backlog.
        token: Ours; whoever has another one cannot settle it.
        message: The stored bytes.
        label: The client's key.
        weight: The client's static weight.
        attempts: How many workers died with it.
        weighed: Its task has a weight function, to be evaluated now.
        profile: The client's tags and custom data, as stored.
        served_before: When the client was served before this turn, by Redis time in seconds; 0.0 for never.
        waited: Seconds since it was enqueued or due.
    """

    entry: str
    token: str
    message: bytes
    label: str
    weight: float
    attempts: int
    weighed: bool
    profile: bytes
    served_before: float
    waited: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What a claim brought.

    Attributes:
        state: ``claimed``, ``empty`` or ``alive`` (see ``lua/claim.lua``).
        late: How many of the carried reports came too late.
        tickets: To be published now.
        claimed: The task, when there is one.
    """

    state: str
    late: int
    tickets: list[Tickets]
    claimed: Claimed | None = None


@dataclass(frozen=True, slots=True)
class Care:
    """What one run of the periodic care found: tickets to publish, and the tasks that died of too many attempts."""

    tickets: list[Tickets]
    returned: int
    abandoned: int
    dead: list[tuple[str, bytes]]


def tickets_of(flat: list[Any]) -> list[Tickets]:
    """The tickets that a script asks for, out of its flat answer."""
    return [Tickets(flat[at], int(flat[at + 1])) for at in range(0, len(flat), 2)]
