"""The backlog in Redis: what waits, whose turn it is, what is in flight. One script per operation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from celery_toolkit_core.connection import DRIVER_ERRORS, explain, server_name
from celery_toolkit_core.keys import digest
from celery_toolkit_core.scripts import Scripts

from .entries import Answer, Care, Claimed, Enqueued, Report, Submission, Tickets, tickets_of
from .errors import TooFewReplicas

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    "tagged",
    "quarantine",
    "history",
    "away",
    "departed",
    "served",
)

#: Seconds in which the replicas must have a task, where the user asks for replicas.
REPLICA_WAIT = 1.0

#: Entries of one kind that one run of the periodic care takes up.
TEND_BATCH = 100


class Queue(NamedTuple):
    """What waits in one queue; `unserved` are the seconds since a worker that consumes it was seen, if ever."""

    address: bytes
    waiting: int
    unserved: float | None


class Backlog:
    """The tasks of one application that wait for a fair turn.

    Args:
        client: A Redis client that answers bytes.
        keys: The key space of the application.
    """

    def __init__(self, client: Any, keys: KeySpace) -> None:
        self.client = client
        self.keys = tuple(keys.key(kind) for kind in STRUCTURES)
        self._scripts = Scripts(client, "celery_ranch")

    def key(self, structure: str) -> str:
        """The key of one of `STRUCTURES`."""
        return self.keys[STRUCTURES.index(structure)]

    def run(self, script: str, args: Sequence[Any] = ()) -> Any:
        """Run one of our scripts with the keys of this backlog."""
        return self._scripts.run(script, self.keys, args)

    def enqueue(self, task: Submission, entry: str | None = None, *, replicas: int = 0) -> Enqueued:
        """Put a task into its client's line.

        Args:
            task: The task.
            entry: Its id in the backlog, 32 hex digits; the same id twice enqueues once.
            replicas: How many must have it too.

        Raises:
            TooFewReplicas: Not so many had it in time. It was taken back, unless a worker has claimed it by then.
        """
        entry = entry or uuid4().hex
        arguments = task.arguments(entry)
        answer, found = self._run_replicated(arguments, replicas) if replicas else (self.run("enqueue", arguments), 0)
        if found < replicas and self.run("withdraw", [entry]):
            server = server_name(self.client)
            raise TooFewReplicas(
                f"only {found} of {replicas} replicas of Redis at {server} have the task; check their connection",
                server=server,
                wanted=replicas,
                found=found,
            )
        state, waiting, *address = answer
        return Enqueued(state.decode(), int(waiting), address[0] if address else task.address)

    def _run_replicated(self, arguments: Sequence[Any], replicas: int) -> tuple[Any, int]:
        try:
            # Redis answers for what came over the same connection.
            with self.client.pipeline(transaction=False) as pipeline:
                self._scripts.run("enqueue", self.keys, arguments, client=pipeline)
                pipeline.wait(replicas, round(REPLICA_WAIT * 1000))
                answer, found = pipeline.execute()
        except DRIVER_ERRORS as error:
            raise explain(error, self.client) from error
        return answer, int(found)

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
        message, profile, line = answer[3:]
        entry, weight, attempts, weighed, before, waited, label = line.decode().split(" ", 6)
        claimed = Claimed(
            entry,
            token,
            message,
            label,
            float(weight),
            int(attempts),
            weighed == "1",
            profile,
            int(before) / 1000,
            max(0, int(waited)) / 1000,
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

    def tend(
        self,
        *,
        max_attempts: int,
        client_ttl: float | None = None,
        idle_queues: Sequence[str] = (),
        busy_queues: Sequence[str] = (),
    ) -> Care:
        """Take back what dead workers held, line up what is due, issue missing tickets, note what is served."""
        ttl_ms = 0 if client_ttl is None else round(client_ttl * 1000)
        arguments = [max_attempts, TEND_BATCH, ttl_ms, len(idle_queues), *idle_queues, *busy_queues]
        tickets, returned, abandoned, dead = self.run("tend", arguments)
        gone = [(dead[at].decode(), dead[at + 1]) for at in range(0, len(dead), 2)]
        return Care(tickets_of(tickets), int(returned), int(abandoned), gone)

    def audit(self) -> dict[str, int]:
        """Where every task ever submitted is, at one moment; see `celery_ranch.audit`."""
        flat = self.run("audit")
        return {flat[at].decode(): int(flat[at + 1]) for at in range(0, len(flat), 2)}

    def queues(self) -> dict[str, Queue]:
        """All queues that ever had a task, by their digests."""
        return {
            row[0].decode(): Queue(row[1], int(row[2]), float(row[3]) if row[3] else None) for row in self.run("queues")
        }


def queue_of(exchange: str, routing_key: str) -> str:
    """The digest that stands for one queue: the place where its messages are published."""
    return digest(exchange, routing_key)


def client_of(label: str) -> str:
    """The digest that stands for one client."""
    return digest(label)
