"""The backlog in Redis: what waits, whose turn it is, what is in flight. One script per operation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from celery_toolkit_core.keys import digest
from celery_toolkit_core.scripts import Scripts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from celery_toolkit_core.keys import KeySpace

#: The structures of ``lua/backlog.lua``, in the order of its KEYS.
STRUCTURES = (
    "entries",
    "messages",
    "waiting",
    "ready",
    "held",
    "idle",
    "turns",
    "clocks",
    "inflight",
    "claims",
    "scheduled",
    "clients",
    "addresses",
    "counters",
    "ended",
    "queued",
    "reissued",
    "profiles",
    "active",
    "dead",
)

#: Entries of one kind that one run of the periodic care takes up.
TEND_BATCH = 100


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


class Backlog:
    """The tasks of one application that wait for a fair turn.

    Args:
        client: A Redis client that answers bytes.
        keys: The key space of the application.
    """

    def __init__(self, client: Any, keys: KeySpace) -> None:
        self.client = client
        self.keys = [keys.key(kind) for kind in STRUCTURES]
        self.tags = keys.key("tagged")
        self._scripts = Scripts(client, "celery_ranch")

    def run(self, script: str, args: Sequence[Any] = (), extra_keys: Sequence[str] = ()) -> Any:
        """Run one of our scripts with the keys of this backlog."""
        return self._scripts.run(script, [*self.keys, *extra_keys], args)

    def enqueue(self, task: Submission, entry: str | None = None) -> tuple[str, int]:
        """Put a task into its client's line.

        Args:
            task: The task.
            entry: Its id in the backlog, 32 hex digits; the same id twice enqueues once.

        Returns:
            ``waiting``, ``scheduled``, ``again`` or ``full``, and how many tasks of the client wait.
        """
        state, waiting = self.run("enqueue", task.arguments(entry or uuid4().hex))
        return state.decode(), int(waiting)

    def claim(
        self,
        queue: str,
        ticket: str,
        token: str,
        *,
        lease: float,
        max_attempts: int,
        reports: Sequence[Report] = (),
    ) -> Answer:
        """Settle what `reports` say and claim the fairest task of `queue` for the holder of `ticket`."""
        answer = self.run(
            "claim",
            [ticket, queue, token, round(lease * 1000), max_attempts, len(reports), *(x for r in reports for x in r)],
        )
        state, late, tickets = answer[0].decode(), int(answer[1]), tickets_of(answer[2])
        if state != "claimed":
            return Answer(state, late, tickets)
        entry, message, label, weight, attempts, weighed, profile, before = answer[3:]
        claimed = Claimed(
            entry.decode(),
            token,
            message,
            label.decode(),
            float(weight),
            int(attempts),
            bool(weighed),
            profile,
            int(before) / 1000,
        )
        return Answer(state, late, tickets, claimed)

    def report(self, reports: Sequence[Report]) -> tuple[int, list[Tickets]]:
        """Settle without a claim: how many reports came too late, and tickets to publish."""
        late, tickets = self.run("report", [len(reports), *(x for r in reports for x in r)])
        return int(late), tickets_of(tickets)

    def renew(self, held: Sequence[tuple[str, str]], *, lease: float) -> list[str]:
        """Renew the leases of (entry, token); the entries that are not ours any more."""
        lost = self.run("renew", [round(lease * 1000), *(x for pair in held for x in pair)])
        return [entry.decode() for entry in lost]

    def tend(self, *, max_attempts: int, client_ttl: float | None = None, idle_queues: Sequence[str] = ()) -> Care:
        """Take back what dead workers held, line up what is due, see to missing tickets."""
        ttl_ms = 0 if client_ttl is None else round(client_ttl * 1000)
        tickets, returned, abandoned, dead = self.run("tend", [max_attempts, TEND_BATCH, ttl_ms, *idle_queues])
        gone = [(dead[at].decode(), dead[at + 1]) for at in range(0, len(dead), 2)]
        return Care(tickets_of(tickets), int(returned), int(abandoned), gone)

    def audit(self) -> dict[str, int]:
        """Where every task ever submitted is, at one moment; see `celery_ranch.audit`."""
        names = (
            "submitted scheduled waiting in_flight dead done expired revoked abandoned handed_back purged "
            "clients entries messages"
        )
        return dict(zip(names.split(), map(int, self.run("audit")), strict=True))

    def find(self, task_id: str) -> list[Place]:
        """Where the entries of a task are. Reads all entries page by page: for a person, not for a program."""
        key = self.keys[STRUCTURES.index("entries")]
        found: list[Place] = []
        cursor = 0
        while True:
            cursor, page = self.client.hscan(key, cursor, count=500)
            # Only those that mention the id are worth a look.
            wanted = [entry for entry, stored in page.items() if task_id.encode() in stored]
            if wanted:
                found += [place for place in self._describe(*wanted) if place.task_id == task_id]
            if not cursor:
                return found

    def dead(self, most: int = 1000) -> list[Place]:
        """The entries that will not be tried again, oldest first."""
        return self._describe(most=most)

    def decide(self, decision: str, entries: Sequence[str]) -> tuple[int, list[Tickets]]:
        """``retry`` or ``drop`` dead entries: how many were, and tickets to publish."""
        decided, tickets = self.run("decide", [decision, *entries])
        return int(decided), tickets_of(tickets)

    def _describe(self, *entries: bytes, most: int = 1000) -> list[Place]:
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
            for row in self.run("describe", [most, *entries])
        ]

    def queues(self) -> list[str]:
        """The digests of all queues that ever had a task."""
        return [field.decode() for field in self.client.hkeys(self.keys[STRUCTURES.index("addresses")])]

    def clients(self) -> Iterator[str]:
        """The digests of all clients, read page by page."""
        for field, _ in self.client.hscan_iter(self.keys[STRUCTURES.index("clients")], count=200):
            yield field.decode()

    def tagged(self, index: str) -> list[str]:
        """The digests of the clients under one entry of the index of tags."""
        members = self.client.zrangebylex(self.tags, f"[{index}:", f"({index};")
        return [member.decode().rpartition(":")[2] for member in members]


def queue_of(exchange: str, routing_key: str) -> str:
    """The digest that stands for one queue: the place where its messages are published."""
    return digest(exchange, routing_key)


def client_of(label: str) -> str:
    """The digest that stands for one client."""
    return digest(label)


def tickets_of(flat: list[Any]) -> list[Tickets]:
    """The tickets that a script asks for, out of its flat answer."""
    return [Tickets(flat[at], int(flat[at + 1])) for at in range(0, len(flat), 2)]
