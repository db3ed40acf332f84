"""Limits: never more than so many starts in any window, never more than so many at once; several taken together.

The rate limit is an exact sliding log kept in Redis and judged by Redis time: among the starts it grants, no window of
`per` seconds, wherever it begins, holds more than `times`. The concurrency limit is a set of leased slots.
"""

from __future__ import annotations

import random
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from . import parameters
from .demands import Concurrency, Demand, RateLimit, parse_rate, part_digest, script_args, script_keys, script_value
from .errors import InvalidParameter, ToolkitError
from .scripts import Scripts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import timedelta

    from .keys import KeySpace

__all__ = [
    "Concurrency",
    "Decision",
    "Demand",
    "Grant",
    "LimitReached",
    "LimitState",
    "Limiter",
    "RateLimit",
    "parse_rate",
    "refusal",
    "script_args",
    "script_keys",
]

#: Seconds between two looks at limits whose next free moment is not known, while `Limiter.hold` waits.
POLL = 0.2


class LimitReached(ToolkitError):
    """The limits left no room within the time that the caller wanted to wait.

    Attributes:
        blocked_by: The names of the limits that were full.
        retry_after: Seconds until a place is expected; None when no time is known.
    """

    blocked_by: tuple[str, ...]
    retry_after: float | None


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer of `Limiter.take`; false in a condition when refused.

    Attributes:
        granted: All limits were taken; when False, none was.
        retry_after: Seconds until a place is expected; 0 when granted, None when no time is known (paused, or a cost
            above the limit in force).
        blocked_by: The names of the limits that refuse, in the order of the demands.
        stamp: When granted: the start's moment in microseconds of Redis time, its identity for `Limiter.settle`.
    """

    granted: bool
    retry_after: float | None = 0.0
    blocked_by: tuple[str, ...] = ()
    stamp: int = 0

    def __bool__(self) -> bool:
        return self.granted


@dataclass(frozen=True, slots=True)
class LimitState:
    """What `Limiter.peek` saw of one demand.

    Attributes:
        demand: What was asked about.
        times: The value in force; 0 when paused.
        per: Seconds of the window, or of a slot's lease.
        used: Cost that counts now, or slots held.
        retry_after: Seconds until the demand would be granted; None when no time is known.
        penalty: Seconds during which nothing may start.
    """

    demand: Demand
    times: int
    per: float
    used: int
    retry_after: float | None
    penalty: float


@dataclass(frozen=True, slots=True)
class Grant:
    """What `Limiter.hold` holds around a block of code."""

    limiter: Limiter
    demands: tuple[Demand, ...]
    token: str
    stamp: int

    def settle(self, used: int, *, name: str | None = None) -> bool:
        """Set what the start cost in the end, on the rate limit `name` (needed only when there are several).

        Raises:
            InvalidParameter: No rate limit that is held has that name, or several could be meant.
        """
        rates = [d for d in self.demands if isinstance(d.limit, RateLimit) and name in (None, d.limit.name)]
        if len(rates) != 1:
            raise InvalidParameter("name", name, "name one of the rate limits that are held")
        return self.limiter.settle([Demand(rates[0].limit, rates[0].part, used)], stamp=self.stamp) == 1

    def renew(self) -> bool:
        """Keep the slots for another `ttl`; False when one was lost."""
        return self.limiter.renew(self.demands, token=self.token)


class Limiter:
    """Takes limits; every operation is one round trip, decided on the server.

    A token stands for one attempt to start. The same token asking again within 10 s gets the same grant, uncharged,
    so that a lost answer can be asked for again; a new attempt of the same work is a new token.

    Args:
        client: A Redis client that answers bytes (`connection.connect`).
        keys: Where the limits live; limits taken together share it.
    """

    def __init__(self, client: Any, keys: KeySpace) -> None:
        self._keys = keys
        self._scripts = Scripts(client, "celery_toolkit_core")

    def take(self, demands: Sequence[Demand], *, token: str) -> Decision:
        """Take all demands, or none.

        Raises:
            InvalidParameter: No demand, or one limit twice, or a token that is no text.
        """
        answer = self._scripts.run("limits_take", self._take_keys(demands, token), [token, *script_args(demands)])
        if answer[0]:
            return Decision(True, stamp=int(answer[1]))
        return refusal(demands, answer[1:])

    def release(self, demands: Sequence[Demand], *, token: str) -> bool:
        """Free the slots that `token` holds. False: it held none (any more).

        Asked again within 10 s, the answer is the same.
        """
        keys = self._take_keys(demands, token)
        return bool(self._scripts.run("limits_release", keys, [token, *script_args(demands)]))

    def renew(self, demands: Sequence[Demand], *, token: str) -> bool:
        """Let the slots of `token` last another `ttl`; False when one of them was lost."""
        return self.renew_many([(demands, token)])[0]

    def renew_many(self, takes: Iterable[tuple[Sequence[Demand], str]]) -> list[bool]:
        """Renew the slots of any number of takes in one round trip; the answers come in the same order."""
        keys: list[str] = []
        args: list[str | int] = []
        for demands, token in takes:
            keys += script_keys(self._keys, demands)
            args += [parameters.text("token", token), *script_args(demands)]
        return [bool(answer) for answer in self._scripts.run("limits_renew", keys, args)] if args else []

    def settle(self, demands: Sequence[Demand], *, stamp: int) -> int:
        """Set what a granted start cost in the end: each demand's `cost` is the final one.

        A cost above the estimate may take the window above its limit; later starts wait until it has passed. A cost of
        0 gives the start back.

        Args:
            demands: The rate limits, with the final costs.
            stamp: `Decision.stamp` of the start.

        Returns:
            On how many of the limits the start still counted; elsewhere its window has passed and nothing changes.
        """
        parameters.count("stamp", stamp)
        keys = script_keys(self._keys, demands)
        return int(self._scripts.run("limits_settle", keys, [stamp, *script_args(demands)]))

    def penalise(self, demands: Sequence[Demand], *, retry_after: float | timedelta) -> None:
        """Let nothing start under these limits for `retry_after` seconds (an answer 429); never shortens."""
        lasting = parameters.milliseconds("retry_after", retry_after)
        self._scripts.run("limits_penalise", [demand.keys(self._keys)[1] for demand in demands], [lasting])

    def peek(self, demands: Sequence[Demand]) -> list[LimitState]:
        """What each limit would answer now; takes nothing."""
        flat = self._scripts.run("limits_peek", script_keys(self._keys, demands), script_args(demands))
        return [
            LimitState(demand, int(times), span_us / 1e6, int(used), None if wait < 0 else wait / 1e6, penalty_us / 1e6)
            for demand, times, span_us, used, wait, penalty_us in zip(
                demands, *(flat[i::5] for i in range(5)), strict=True
            )
        ]

    def override(self, value: RateLimit | Concurrency, *part: str, lasting: float | timedelta | None = None) -> None:
        """Put another value in force for the limit of that name, everywhere and at once.

        A shorter window forgets what it does not count; a window made longer counts only from what was remembered. Of
        a `Concurrency` only `times` and `paused` change, the lease stays as defined.

        Args:
            value: The limit as it shall be.
            *part: Only for that part; a part's value goes before the limit's.
            lasting: Seconds until the defined value returns; None: until `restore`.
        """
        until = 0 if lasting is None else parameters.milliseconds("lasting", lasting)
        self._set_value(value, part, script_value(value), until)

    def restore(self, value: RateLimit | Concurrency, *part: str) -> None:
        """Return to the defined value, whether or not another was in force."""
        self._set_value(value, part, [-1, 0], 0)

    @contextmanager
    def hold(self, demands: Sequence[Demand], *, token: str | None = None, wait: float = 0.0) -> Iterator[Grant]:
        """Take limits around a block of plain code; slots are freed at its end.

        Nothing renews the slots meanwhile: choose a `ttl` that covers the block, or call `Grant.renew` in it.

        Args:
            demands: What to take.
            token: Who takes; a fresh one by default.
            wait: Seconds to wait for a place.

        Raises:
            LimitReached: There was none for `wait` seconds.
        """
        token = uuid4().hex if token is None else token
        deadline = time.monotonic() + parameters.seconds("wait", wait, zero=True)
        while not (decision := self.take(demands, token=token)):
            left = deadline - time.monotonic()
            if left <= 0:
                raise LimitReached(
                    f"no room under {', '.join(decision.blocked_by)}; wait longer or raise the limit",
                    blocked_by=decision.blocked_by,
                    retry_after=decision.retry_after,
                )
            pause = POLL * random.uniform(0.5, 1)  # noqa: S311  # spreads waiters, guards nothing
            time.sleep(max(0.001, min(left, decision.retry_after or pause, pause)))
        try:
            yield Grant(self, tuple(demands), token, decision.stamp)
        finally:
            if any(isinstance(demand.limit, Concurrency) for demand in demands):
                self.release(demands, token=token)

    def _take_keys(self, demands: Sequence[Demand], token: str) -> list[str]:
        if not demands:
            raise InvalidParameter("demands", demands, "give at least one")
        parameters.text("token", token)
        keys = script_keys(self._keys, demands)
        return [self._keys.key("limit-receipt", token, *keys), *keys]

    def _set_value(self, limit: RateLimit | Concurrency, part: tuple[str, ...], value: list[int], until: int) -> None:
        keys = Demand(limit, part).keys(self._keys)[2:]
        self._scripts.run("limits_override", keys, [part_digest(part), *value, until])


def refusal(demands: Sequence[Demand], blocked: Sequence[int]) -> Decision:
    """The decision from what ``limits_blocked`` found: place from 1, microseconds or -1, in turn."""
    waits = blocked[1::2]
    retry_after = None if min(waits) < 0 else max(waits) / 1e6
    return Decision(False, retry_after, tuple(demands[place - 1].limit.name for place in blocked[::2]))
