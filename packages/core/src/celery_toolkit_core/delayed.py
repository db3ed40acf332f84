"""Delayed: entries that wait for their time, then for their turn, and are taken in batches under a lease."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from . import parameters
from .scripts import Scripts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from .keys import KeySpace


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry as it was taken.

    Attributes:
        id: What the entry is called.
        payload: The bytes that were put, untouched.
        order: Its place among the due, lowest first; put again with it, the entry keeps its place.
    """

    id: str
    payload: bytes
    order: float


@dataclass(frozen=True, slots=True)
class Batch:
    """What one take got: first come first, held by `token` until the lease ends."""

    token: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class DelayedState:
    """How much is in the queue.

    Attributes:
        later: Entries that are not yet due.
        ready: Entries that a take would get now.
        taken: Entries under a lease that lives.
        next_due: Seconds until an entry can be taken; None when nothing will be without a put.
    """

    later: int
    ready: int
    taken: int
    next_due: float | None


class Delayed:
    """A queue of entries with a due time each; among the due, first come is first served.

    An entry is taken under a lease and then confirmed (it is gone) or given back (it waits again, at its old place). A
    taker that dies loses its lease, and the entry is ready again. Every operation is one round trip, O(log entries)
    for each entry that it touches; asked again with the same token within 10 s, it gives the same answer.

    Args:
        client: A Redis client that answers bytes (`connection.connect`).
        keys: Where the queue lives.
        name: Which queue.
    """

    def __init__(self, client: Any, keys: KeySpace, name: str = "main") -> None:
        self._keys = keys
        self._name = parameters.text("name", name)
        self._scripts = Scripts(client, "celery_toolkit_core")

    @property
    def queue_keys(self) -> list[str]:
        """The five keys that ``delayed_queue`` of ``delayed.lua`` wants, for a script of one's own."""
        return [self._keys.key(f"delayed-{part}", self._name) for part in _PARTS]

    def put(
        self,
        entry: str,
        payload: bytes = b"",
        *,
        delay: float | timedelta = 0.0,
        order: float | None = None,
        token: str | None = None,
    ) -> float:
        """Let an entry wait; one of the same id is replaced, and who had taken that can no longer confirm it.

        Args:
            entry: The entry's id.
            payload: Bytes to keep with it.
            delay: Seconds until it is due.
            order: Its place among the due, lowest first; None: behind all that came earlier.
            token: One attempt to put; a fresh one by default.

        Returns:
            The entry's order.
        """
        token = uuid4().hex if token is None else parameters.text("token", token)
        receipt = self._keys.key("delayed-receipt", self._name, token, parameters.text("entry", entry))
        wait = parameters.milliseconds("delay", delay, zero=True)
        place = "" if order is None else repr(parameters.number("order", order))
        return float(self._scripts.run("delayed_put", [receipt, *self.queue_keys], [entry, payload, wait, place]))

    def take(self, count: int = 1, *, lease: float | timedelta = 30.0, token: str | None = None) -> Batch:
        """Take up to `count` (at most 1000) due entries, to be confirmed or given back within `lease` seconds."""
        token = uuid4().hex if token is None else parameters.text("token", token)
        args = [token, parameters.count("count", count, most=1000), parameters.milliseconds("lease", lease)]
        flat = self._scripts.run("delayed_take", self._batch_keys(token), args)
        return Batch(
            token,
            tuple(Entry(flat[i].decode(), flat[i + 1], float(flat[i + 2])) for i in range(0, len(flat), 3)),
        )

    def confirm(self, token: str, entries: Sequence[str]) -> list[bool]:
        """Let taken entries go for good; False for each that `token` does not hold any more."""
        return self._settle(token, entries, "confirmed", 0)

    def give_back(self, token: str, entries: Sequence[str], *, delay: float | timedelta = 0.0) -> list[bool]:
        """Let taken entries wait again, at their old places, for at least `delay` seconds; answers as `confirm`."""
        return self._settle(token, entries, "back", parameters.milliseconds("delay", delay, zero=True))

    def discard(self, entries: Sequence[str]) -> int:
        """Forget entries, whatever their state; how many were there (a replay counts only what is left)."""
        for entry in entries:
            parameters.text("entry", entry)
        return int(self._scripts.run("delayed_discard", self.queue_keys, list(entries)))

    def look(self) -> DelayedState:
        """How much waits, and when the next entry can be taken; changes nothing."""
        later, ready, taken, next_ms = self._scripts.run("delayed_look", self.queue_keys)
        return DelayedState(int(later), int(ready), int(taken), None if next_ms < 0 else next_ms / 1000)

    def _settle(self, token: str, entries: Sequence[str], word: str, wait: int) -> list[bool]:
        for entry in entries:
            parameters.text("entry", entry)
        keys = self._batch_keys(parameters.text("token", token))
        return [bool(answer) for answer in self._scripts.run("delayed_settle", keys, [token, word, wait, *entries])]

    def _batch_keys(self, token: str) -> list[str]:
        return [self._keys.key("delayed-batch", self._name, token), *self.queue_keys]


_PARTS = ("payloads", "places", "later", "ready", "taken")
