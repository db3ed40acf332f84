"""What may be limited, and what one start demands of it: definitions only, nothing here asks the server."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import parameters
from .errors import InvalidParameter
from .keys import digest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from .keys import KeySpace

#: The most that one start may cost, and a limit may allow: far above any use, far below what a Lua number rounds.
MOST = 10**12

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_RATE = re.compile(r"\s*([0-9]{1,13})\s*/\s*([0-9]{1,9}(?:\.[0-9]{1,6})?)?\s*(ms|s|m|h|d)\s*")
_RATE_REMEDY = "give a text such as '60/m', '10/5s', '2/500ms', '100000/d', or a pair (times, seconds)"


def parse_rate(rate: Any, *, parameter: str = "rate") -> tuple[int, float]:
    """``(times, seconds)`` from a text such as ``"60/m"`` or ``"10/5s"``, or from a pair.

    Raises:
        InvalidParameter: It is neither, or holds 0, a negative or fractional count, or no finite time above 0.
    """
    if isinstance(rate, str):
        found = _RATE.fullmatch(rate)
        if found is None:
            raise InvalidParameter(parameter, rate, _RATE_REMEDY)
        rate = (int(found[1]), round(float(found[2] or 1) * _UNITS[found[3]], 6))
    if not isinstance(rate, (tuple, list)) or len(rate) != 2:
        raise InvalidParameter(parameter, rate, _RATE_REMEDY)
    if rate[0] == 0 and not isinstance(rate[0], bool):
        raise InvalidParameter(f"{parameter} times", rate[0], "give 1 or more; what stops a limit is paused=True")
    times = parameters.count(f"{parameter} times", rate[0], most=MOST)
    return times, parameters.milliseconds(f"{parameter} per", rate[1]) / 1000


@dataclass(frozen=True, slots=True, init=False)
class RateLimit:
    """At most `times` starts (or a total cost of `times`) in any window of `per` seconds.

    Args:
        rate: ``"60/m"``, ``"10/5s"``, ``(60, 60.0)``: times and seconds (or a ``timedelta``), from 1 ms on.
        name: What is limited. Limits of one name and kind share their count, wherever they are defined.
        paused: Nothing may start at all.

    Raises:
        InvalidParameter: The rate cannot be meant, or the name is empty.
    """

    times: int
    per: float
    name: str
    paused: bool = False

    def __init__(self, rate: str | tuple[int, float | timedelta], *, name: str, paused: bool = False) -> None:
        times, per = parse_rate(rate)
        object.__setattr__(self, "times", times)
        object.__setattr__(self, "per", per)
        object.__setattr__(self, "name", parameters.text("name", name))
        object.__setattr__(self, "paused", parameters.flag("paused", paused))

    def demand(self, *part: str, cost: int = 1) -> Demand:
        """One start that costs `cost`, counted for one part (a tenant, an account) or for all together."""
        return Demand(self, part, cost)


@dataclass(frozen=True, slots=True)
class Concurrency:
    """At most `times` at once, each for at most `ttl` seconds unless it renews.

    Args:
        times: How many slots there are.
        name: What is limited. Limits of one name and kind share their slots, wherever they are defined.
        ttl: Seconds until the slot of a dead holder is free again.
        paused: Nothing may start at all.

    Raises:
        InvalidParameter: A value cannot be meant.
    """

    times: int
    name: str = field(kw_only=True)
    ttl: float = field(default=30.0, kw_only=True)
    paused: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        parameters.count("times", self.times, most=MOST)
        parameters.text("name", self.name)
        parameters.flag("paused", self.paused)
        object.__setattr__(self, "ttl", parameters.milliseconds("ttl", self.ttl) / 1000)

    def demand(self, *part: str) -> Demand:
        """One slot, of one part (a tenant, an account) or of all together."""
        return Demand(self, part)


@dataclass(frozen=True, slots=True)
class Demand:
    """What one start wants of one limit: made by `RateLimit.demand` and `Concurrency.demand`.

    Attributes:
        limit: The limit.
        part: Whose share is counted; empty: one count for all.
        cost: How much of a rate limit the start uses, from 0 on. A concurrency limit knows only 1.
    """

    limit: RateLimit | Concurrency
    part: tuple[str, ...] = ()
    cost: int = 1

    def __post_init__(self) -> None:
        for text in self.part:
            parameters.text("part", text)
        if isinstance(self.limit, Concurrency):
            parameters.count("cost", self.cost, least=1, most=1)
        else:
            parameters.count("cost", self.cost, least=0, most=MOST)

    @property
    def kind(self) -> str:
        """``rate`` or ``slots``."""
        return "slots" if isinstance(self.limit, Concurrency) else "rate"

    def keys(self, space: KeySpace) -> list[str]:
        """The three keys of this limit and part, in the order that ``limits.lua`` reads."""
        names = (self.kind, self.limit.name)
        return [
            space.key("limit", *names, *self.part),
            space.key("limit-penalty", *names, *self.part),
            space.key("limit-values", *names),
        ]

    def args(self) -> list[str | int]:
        """The five arguments of this demand, in the order that ``limits.lua`` reads."""
        return [self.kind, *script_value(self.limit), self.cost, part_digest(self.part)]


def part_digest(part: Sequence[str]) -> str:
    """The field of a part in the hash of values in force; empty for the whole limit."""
    return digest(*part) if part else ""


def script_keys(space: KeySpace, demands: Sequence[Demand]) -> list[str]:
    """The KEYS that ``limits_read`` of ``limits.lua`` wants, for a script of one's own."""
    return [key for demand in demands for key in demand.keys(space)]


def script_args(demands: Sequence[Demand]) -> list[str | int]:
    """The ARGV that ``limits_read`` of ``limits.lua`` wants, for a script of one's own.

    Raises:
        InvalidParameter: One limit and part stands twice; its cost could not be judged.
    """
    places = [(demand.kind, demand.limit.name, demand.part) for demand in demands]
    if len(set(places)) < len(places):
        raise InvalidParameter("demands", places, "name each limit and part once; add up the cost instead")
    return [len(demands), *(arg for demand in demands for arg in demand.args())]


def script_value(limit: RateLimit | Concurrency) -> list[int]:
    """Times (0: paused) and the window or lease in microseconds, as the scripts want them."""
    span = limit.ttl if isinstance(limit, Concurrency) else limit.per
    return [0 if limit.paused else limit.times, round(span * 1_000_000)]
