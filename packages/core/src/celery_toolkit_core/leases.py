"""Leases: a name held by at most N tokens, each for a limited time, with a fence number that only rises.

A lease bounds how long a dead holder blocks the others; it cannot stop a frozen holder from acting late. Pass the
fence to whatever the holder writes to, and let that refuse a lower fence than it has seen (M. Kleppmann, "How to do
distributed locking", 2016).
"""

from __future__ import annotations

import random
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

from . import parameters
from .errors import ToolkitError
from .scripts import Scripts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .keys import KeySpace

#: Seconds between two looks at a name that is held, while `Leases.hold` waits; halved at random against herds.
POLL = 0.2


class LeaseHeld(ToolkitError):
    """The name is held by another, for longer than the caller wanted to wait.

    Attributes:
        name: The name of the lease.
        holder: The token of the holder whose lease ends first.
        remaining: Seconds until that lease ends, unless it is renewed.
    """

    name: str
    holder: str
    remaining: float


@dataclass(frozen=True, slots=True)
class Lease:
    """A permit held by a token, from now for `ttl` seconds.

    Attributes:
        fence: Higher than the fence of every earlier holder of this name.
    """

    name: str
    token: str
    fence: int
    ttl: float


@dataclass(frozen=True, slots=True)
class Held:
    """The answer of `Leases.acquire` when all permits are taken; it is false in a condition.

    Attributes:
        holder: The token of the holder whose lease ends first.
        remaining: Seconds until that lease ends, unless it is renewed.
    """

    name: str
    holder: str
    remaining: float

    def __bool__(self) -> Literal[False]:
        return False


@dataclass(frozen=True, slots=True)
class Holder:
    """One live holder as `Leases.inspect` saw it; `remaining` is in seconds."""

    token: str
    fence: int
    remaining: float


@dataclass(frozen=True, slots=True)
class LeaseState:
    """What `Leases.inspect` saw.

    Attributes:
        holders: The live holders, first to end first.
        fence: The last fence given out, 0 when none is remembered.
    """

    name: str
    holders: tuple[Holder, ...]
    fence: int


class Leases:
    """Names that at most `permits` tokens hold at a time.

    All operations take one round trip. A token is whatever identifies one attempt to hold: the same token acquiring
    again is the same holder (a lost answer can be asked for again), and gets the same fence.

    Args:
        client: A Redis client that answers bytes (`connection.connect`).
        keys: Where the leases live.
        permits: How many tokens may hold one name.
        ttl: Seconds that a lease lasts unless renewed.

    Raises:
        InvalidParameter: `permits` is not a whole number from 1 on, or `ttl` is not above 0.
    """

    def __init__(self, client: Any, keys: KeySpace, *, permits: int = 1, ttl: float = 30.0) -> None:
        self.permits = parameters.count("permits", permits)
        self.ttl = parameters.milliseconds("ttl", ttl) / 1000
        self._keys = keys
        self._scripts = Scripts(client, "celery_toolkit_core")

    def acquire(self, name: str, token: str, *, ttl: float | None = None) -> Lease | Held:
        """Hold `name`, or learn who does.

        Returns:
            A `Lease`, also when `token` held the name already (then with its old fence and a new end); or `Held`,
            which is false and names the holder.
        """
        ttl_ms = self._ttl_ms(ttl)
        answer = self._scripts.run(
            "lease_acquire", self._names(name), [parameters.text("token", token), self.permits, ttl_ms]
        )
        if answer[0]:
            return Lease(name, token, int(answer[1]), ttl_ms / 1000)
        return Held(name, answer[1].decode(), answer[2] / 1000)

    def renew(self, name: str, token: str, *, ttl: float | None = None) -> bool:
        """Let the lease last `ttl` seconds from now; False when `token` does not hold it (any more)."""
        return self.renew_many([(name, token)], ttl=ttl)[0]

    def renew_many(self, leases: Iterable[tuple[str, str]], *, ttl: float | None = None) -> list[bool]:
        """Renew any number of ``(name, token)`` in one round trip; the answers come in the same order."""
        ttl_ms = self._ttl_ms(ttl)
        keys: list[str] = []
        args: list[str | int] = []
        for name, token in leases:
            keys += self._names(name)
            args += [parameters.text("token", token), ttl_ms]
        return [bool(answer) for answer in self._scripts.run("lease_renew", keys, args)] if keys else []

    def release(self, name: str, token: str) -> bool:
        """Give the permit back, if `token` holds it. False: it held nothing (any more).

        Asked again within 10 s, the answer is the same.
        """
        return bool(self._scripts.run("lease_release", self._names(name), [parameters.text("token", token)]))

    def inspect(self, name: str) -> LeaseState:
        """Who holds `name` now; changes nothing."""
        fence, *rest = self._scripts.run("lease_inspect", self._names(name))
        holders = tuple(Holder(rest[i].decode(), int(rest[i + 1]), rest[i + 2] / 1000) for i in range(0, len(rest), 3))
        return LeaseState(name, holders, int(fence))

    @contextmanager
    def hold(
        self, name: str, *, token: str | None = None, ttl: float | None = None, wait: float = 0.0
    ) -> Iterator[Lease]:
        """Hold `name` around a block of plain code; released at its end.

        Nothing renews the lease meanwhile: choose a `ttl` that covers the block, or call `renew` in it.

        Args:
            name: What to hold.
            token: Who holds; a fresh one by default.
            ttl: Seconds the lease lasts.
            wait: Seconds to wait for a permit.

        Raises:
            LeaseHeld: Others held all permits for `wait` seconds.
        """
        token = uuid4().hex if token is None else token
        deadline = time.monotonic() + parameters.seconds("wait", wait, zero=True)
        while isinstance(answer := self.acquire(name, token, ttl=ttl), Held):
            left = deadline - time.monotonic()
            if left <= 0:
                raise LeaseHeld(
                    f"{name!r} is held by {answer.holder!r} for another {answer.remaining:.1f} s; wait longer",
                    name=name,
                    holder=answer.holder,
                    remaining=answer.remaining,
                )
            pause = POLL * random.uniform(0.5, 1)  # noqa: S311  # spreads waiters, guards nothing
            time.sleep(max(0.001, min(left, answer.remaining, pause)))
        try:
            yield answer
        finally:
            self.release(name, token)

    def _names(self, name: str) -> list[str]:
        parameters.text("name", name)
        return [self._keys.key("lease", name), self._keys.key("lease-fence", name)]

    def _ttl_ms(self, ttl: float | None) -> int:
        return parameters.milliseconds("ttl", self.ttl if ttl is None else ttl)
