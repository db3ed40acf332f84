"""What users write at a task, parsed once, at decoration, into one frozen `Options`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import Enum
from typing import Any, Literal

from celery_toolkit_core import parameters
from celery_toolkit_core.errors import InvalidParameter
from celery_toolkit_core.limits import parse_rate

Until = Literal["start", "finish", "expiry"]
OnConflict = Literal["return", "raise", "ignore", "join"]
StrategyWord = Literal["park", "retry", "drop", "raise"]
KeyFunction = Callable[[tuple[Any, ...], dict[str, Any]], "str | int"]
LimitFunction = Callable[..., "tuple[int, float]"]

#: What a name of a task's own is compared with, to find options that were meant for us.
_NEAR = ("unique", "limits", "rate_limit", "concurrency")

#: The keys of the option dict ``heimdall={...}``.
DICT_KEYS = (
    "unique",
    "unique_timeout",
    "unique_raises",
    "unique_wait_for_expiry",
    "unique_lock_timeout",
    "unique_lock_blocking",
    "key",
    "times",
    "per",
    "rate_limit",
    "lock_prefix",
    "rate_limit_prefix",
)


class Strategy(Enum):
    """What happens to a task that a limit refuses; where several limits do, raise goes before drop before waiting."""

    #: It waits in Redis, first come first served, without a worker slot, a retry or an ETA.
    PARK = "park"
    #: It waits in Redis too, but alone: it tries again after the expected wait and a random time more, in no order. Its
    #: state is RETRY meanwhile; its ``retries`` stay as they are.
    RETRY = "retry"
    #: It does not run: its state is REVOKED.
    DROP = "drop"
    #: It does not run: it fails with `LimitExceeded`.
    RAISE = "raise"
    #: The name that celery-heimdall 1.0 knows.
    DEFAULT = "park"  # noqa: PIE796  # an alias on purpose


@dataclass(frozen=True, slots=True)
class Unique:
    """At most one task of a key at a time.

    Args:
        by: Names of the arguments that make the key; all of them when left out.
        key: A text, or a function of ``(args, kwargs)`` that gives a text or whole number, instead of `by`.
            Tasks that give the same key exclude each other.
        until: When the next one may be queued: at the ``start`` of the body, at its ``finish``, or at ``expiry`` of
            `ttl` even if the body ended long before.
        while_executing: Also with ``until="start"``, no two bodies run at once: one queued and one running.
        on_conflict: ``return`` the holder's result handle, ``raise`` `AlreadyQueuedError`, ``ignore`` (a handle in
            state REVOKED), or ``join``: run as a task of its own that ends with the holder's result.
        ttl: Seconds (or a timedelta) after which the next one may be queued whatever became of this one; the
            setting ``heimdall_unique_timeout`` (3600) when left out.

    Raises:
        InvalidParameter: A value that cannot be meant.
    """

    by: tuple[str, ...] | None = None
    key: str | KeyFunction | None = None
    until: Until = "finish"
    while_executing: bool = False
    on_conflict: OnConflict | None = None
    ttl: float | timedelta | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "by", _names("by", self.by))
        _check_key("key", self.key)
        if self.by is not None and self.key is not None:
            raise InvalidParameter("by", self.by, "give either by or key, not both")
        parameters.one_of("until", self.until, ("start", "finish", "expiry"))
        parameters.flag("while_executing", self.while_executing)
        if self.on_conflict is not None:
            parameters.one_of("on_conflict", self.on_conflict, ("return", "raise", "ignore", "join"))
        if self.ttl is not None:
            object.__setattr__(self, "ttl", parameters.seconds("ttl", self.ttl))


@dataclass(frozen=True, slots=True)
class RateLimit:
    """Never more than so many starts in any window of so many seconds, over all workers, by the clock of Redis.

    Args:
        rate_limit: ``(times, per)`` with `per` in seconds, a text like ``"60/m"`` or ``"10/5s"``, or a
            function that takes any of ``key, task, args, kwargs`` and returns ``(times, per)``.
        strategy: What happens to a task that must wait: a `Strategy` or its word, ``park``, ``retry``, ``drop`` or
            ``raise``.
        name: Tasks whose limits have the same name share it; the task's own name when left out.
        by: Names of the arguments that part the limit: each of their values has a limit of its own.
        key: A text, or a function of ``(args, kwargs)``, that parts the limit instead of `by`.
        cost: How much of `times` one start uses: a whole number, or a function of the call (with `args` and
            `kwargs`) that gives one. `celery_heimdall.settle` corrects it afterwards.
        paused: Nothing starts until ``set_limit`` or ``celery heimdall set-limit`` puts a value in force.

    Raises:
        InvalidParameter: A value that cannot be meant.
    """

    rate_limit: str | tuple[int, float] | LimitFunction
    strategy: Strategy | StrategyWord = Strategy.DEFAULT
    name: str | None = None
    by: tuple[str, ...] | None = None
    key: str | KeyFunction | None = None
    cost: int | Callable[[Any], int] = 1
    paused: bool = False

    def __post_init__(self) -> None:
        if not callable(self.cost):
            parameters.count("cost", self.cost, least=0)
        if not callable(self.rate_limit):
            object.__setattr__(self, "rate_limit", parse_rate(self.rate_limit, parameter="rate_limit"))
        _check_limit(self)


@dataclass(frozen=True, slots=True)
class Concurrency:
    """At most so many bodies at once, over all workers; a killed worker's places come back when their lease ends.

    Args:
        limit: How many, 1 or more.
        name: Tasks whose limits have the same name share it; the task's own name when left out.
        by: Names of the arguments that part the limit.
        key: A text, or a function of ``(args, kwargs)``, that parts the limit instead of `by`.
        strategy: As of a `RateLimit`.
        paused: Likewise.

    Raises:
        InvalidParameter: A value that cannot be meant.
    """

    limit: int
    name: str | None = None
    by: tuple[str, ...] | None = None
    key: str | KeyFunction | None = None
    strategy: Strategy | StrategyWord = Strategy.DEFAULT
    paused: bool = False

    def __post_init__(self) -> None:
        _times("limit", self.limit)
        _check_limit(self)


@dataclass(frozen=True, slots=True)
class Options:
    """What a task wants of heimdall, whichever way it was written."""

    unique: Unique | None = None
    limits: tuple[RateLimit | Concurrency, ...] = ()
    #: Whether a duplicate raises, as the dict says; None leaves it to the setting.
    unique_raises: bool | None = None
    lock_prefix: str | None = None
    rate_limit_prefix: str | None = None

    @property
    def active(self) -> bool:
        """Whether heimdall has anything to do for the task."""
        return self.unique is not None or bool(self.limits)


def parse(heimdall: Any = None, unique: Any = None, limits: Any = None) -> Options:
    """The options of one task from its dict and its typed attributes.

    Raises:
        InvalidParameter: An unknown or impossible option, or the same thing said twice.
    """
    options = _parse_dict({} if heimdall is None else heimdall)
    if unique is not None:
        if not isinstance(unique, Unique):
            raise InvalidParameter("unique", unique, "give a Unique(...); the dict form is heimdall={'unique': True}")
        if options.unique is not None:
            raise InvalidParameter("unique", unique, "say it once: either here or in the heimdall dict")
    if limits is not None:
        limits = (limits,) if isinstance(limits, (RateLimit, Concurrency)) else limits
        if not isinstance(limits, Sequence) or not all(isinstance(one, (RateLimit, Concurrency)) for one in limits):
            raise InvalidParameter("limits", limits, "give a list of RateLimit(...) and Concurrency(...)")
    return Options(
        unique=unique if unique is not None else options.unique,
        limits=(*options.limits, *(limits or ())),
        unique_raises=options.unique_raises,
        lock_prefix=options.lock_prefix,
        rate_limit_prefix=options.rate_limit_prefix,
    )


def check_names(attributes: Mapping[str, Any]) -> None:
    """Refuse an option under a name that is nearly one of ours, which Celery would take as any other attribute.

    Args:
        attributes: What a task's class declares.

    Raises:
        InvalidParameter: Such as ``limit=[RateLimit(...)]``.
    """
    for name, value in attributes.items():
        if is_option(value) and name not in ("unique", "limits") and parameters.nearest(name, _NEAR):
            remedy = "the options are called unique=Unique(...) and limits=[RateLimit(...), Concurrency(...)]"
            raise InvalidParameter(name, value, remedy)


def is_option(value: Any) -> bool:
    """Whether somebody gave this to a task for us: an option, or several."""
    parts = value if isinstance(value, (list, tuple)) else (value,)
    return any(isinstance(part, (Unique, RateLimit, Concurrency)) for part in parts)


def check_signature(options: Options, name: str, run: Callable[..., Any], *, bound: bool) -> None:
    """Refuse `by` names that the task's function does not have.

    Args:
        options: The task's options.
        name: The task's name, for the message.
        run: The task's function.
        bound: Whether its first parameter is the task itself.
    """
    known = list(inspect.signature(run).parameters)[1 if bound else 0 :]
    for owner in (options.unique, *options.limits):
        for wanted in (owner.by if owner is not None else None) or ():
            if wanted not in known:
                raise InvalidParameter("by", wanted, f"{name} has no such argument{parameters.nearest(wanted, known)}")


def _parse_dict(given: Any) -> Options:
    if not isinstance(given, Mapping):
        raise InvalidParameter("heimdall", given, "give a dict of options")
    for name in given:
        if name not in DICT_KEYS:
            raise InvalidParameter("heimdall", name, f"there is no such option{parameters.nearest(name, DICT_KEYS)}")
    key = given.get("key")
    _check_key("key", key)
    raises = _optional(given, "unique_raises", parameters.flag)
    expiry = _optional(given, "unique_wait_for_expiry", parameters.flag) or False
    ttl = _optional(given, "unique_timeout", parameters.seconds)
    # A duplicate never waits here; these two stay valid so that code written for celery-heimdall 1.0 runs unchanged.
    _optional(given, "unique_lock_timeout", lambda name, value: parameters.seconds(name, value, zero=True))
    _optional(given, "unique_lock_blocking", parameters.flag)
    unique = None
    if _optional(given, "unique", parameters.flag):
        unique = Unique(key=key, until="expiry" if expiry else "finish", ttl=ttl)
    return Options(
        unique=unique,
        limits=_dict_limits(given, key),
        unique_raises=raises,
        lock_prefix=_optional(given, "lock_prefix", parameters.text),
        rate_limit_prefix=_optional(given, "rate_limit_prefix", parameters.text),
    )


def _dict_limits(given: Mapping[str, Any], key: Any) -> tuple[RateLimit, ...]:
    found = []
    if "times" in given or "per" in given:
        for needed, other in (("times", "per"), ("per", "times")):
            if needed not in given:
                raise InvalidParameter(other, given[other], f"give {needed} as well")
        pair = (_times("times", given["times"]), parameters.seconds("per", given["per"]))
        found.append(RateLimit(pair, key=key))
    if "rate_limit" in given:
        if found:
            raise InvalidParameter("rate_limit", given["rate_limit"], "give either rate_limit or times and per")
        limit = given["rate_limit"]
        if not isinstance(limit, RateLimit):
            limit = RateLimit(limit)
        if key is not None and limit.key is None and limit.by is None:
            limit = replace(limit, key=key)
        found.append(limit)
    return tuple(found)


def _optional(given: Mapping[str, Any], name: str, check: Callable[[str, Any], Any]) -> Any:
    return check(name, given[name]) if name in given else None


def _times(parameter: str, value: Any) -> int:
    if value == 0 and not isinstance(value, bool):
        raise InvalidParameter(parameter, value, "give 1 or more; what stops a limit is paused=True")
    return parameters.count(parameter, value)


def _check_limit(limit: RateLimit | Concurrency) -> None:
    if not isinstance(limit.strategy, Strategy):
        words = [each.value for each in Strategy]
        object.__setattr__(limit, "strategy", Strategy(parameters.one_of("strategy", limit.strategy, words)))
    parameters.flag("paused", limit.paused)
    if limit.name is not None:
        parameters.text("name", limit.name)
    object.__setattr__(limit, "by", _names("by", limit.by))
    _check_key("key", limit.key)
    if limit.by is not None and limit.key is not None:
        raise InvalidParameter("by", limit.by, "give either by or key, not both")


def _check_key(parameter: str, value: Any) -> None:
    if value is None or (isinstance(value, str) and value):
        return
    if inspect.iscoroutinefunction(value):
        raise InvalidParameter(parameter, value, "give a plain function; a coroutine cannot be awaited here")
    if not callable(value):
        raise InvalidParameter(parameter, value, "give a non-empty text or a function of (args, kwargs)")


def _names(parameter: str, value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, Sequence) or not names or not all(isinstance(name, str) and name for name in names):
        raise InvalidParameter(parameter, value, "give one or more argument names")
    return tuple(names)
