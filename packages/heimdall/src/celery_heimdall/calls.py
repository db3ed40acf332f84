"""What one call of a task means to heimdall: the key of its lock and what it wants of its limits."""

from __future__ import annotations

import inspect
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from kombu.serialization import dumps

from celery_toolkit_core import limits as core
from celery_toolkit_core.canonical import bound_arguments, call_digest
from celery_toolkit_core.errors import InvalidParameter

from .options import Concurrency, RateLimit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .options import Unique
    from .settings import HeimdallSettings

_PLAIN = (str, int, type(None))


class Call:
    """One call of a task; what is derived from its arguments is worked out at the first use.

    Args:
        task: The task.
        args: Its positional arguments.
        kwargs: Its arguments by name.
        load: Gives both, at the first use; for a message that is decoded only when somebody asks.
    """

    def __init__(
        self,
        task: Any,
        args: Sequence[Any] | None = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        load: Callable[[], tuple[Sequence[Any], Mapping[str, Any]]] | None = None,
    ) -> None:
        self.task = task
        self._load = load
        self._arguments = None if load else (tuple(args or ()), dict(kwargs or {}))
        self._bound: dict[str, Any] | None = None

    @property
    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The positional arguments and those by name."""
        if self._arguments is None:
            assert self._load is not None
            args, kwargs = self._load()
            self._arguments = tuple(args), dict(kwargs)
        return self._arguments

    @property
    def args(self) -> tuple[Any, ...]:
        """The positional arguments."""
        return self.arguments[0]

    @property
    def kwargs(self) -> dict[str, Any]:
        """The arguments by name, as they were given."""
        return self.arguments[1]

    @property
    def bound(self) -> dict[str, Any]:
        """The arguments by parameter name, defaults filled in."""
        if self._bound is None:
            args, kwargs = self.arguments
            try:
                self._bound = bound_arguments(self.task, args, kwargs)
            except TypeError:
                if self.task.typing:
                    raise
                # The user has switched Celery's check of arguments off: then they are compared as they were given.
                self._bound = {"args": args, "kwargs": kwargs}
        return self._bound

    def key(self, unique: Unique) -> str:
        """The key of the lock, as text for people and scripts alike.

        Raises:
            InvalidParameter: The key function gave something that is no key.
        """
        if unique.key is not None:
            return self._given_key(unique.key)
        wanted = self.bound if unique.by is None else {name: self.bound.get(name) for name in unique.by}
        return f"{self.task.name}:{self._digest(wanted)}"

    def demands(self, limits: Sequence[RateLimit | Concurrency], prefix: str, lease: float) -> list[core.Demand]:
        """What the call wants of each limit.

        Raises:
            InvalidParameter: A function gave something that is no key or limit.
        """
        return [self._demand(limit, prefix, lease) for limit in limits]

    def _demand(self, limit: RateLimit | Concurrency, prefix: str, lease: float) -> core.Demand:
        name: str = limit.name if limit.name is not None else self.task.name
        part: tuple[str, ...] = ()
        if limit.key is not None:
            label = self._given_key(limit.key)
            # As in celery-heimdall 1.0, a key alone names the limit: tasks that share the key share the count.
            name, part = (label, ()) if limit.name is None else (limit.name, (label,))
        elif limit.by is not None:
            part = tuple(self._part(self.bound.get(argument)) for argument in limit.by)
        if isinstance(limit, Concurrency):
            return core.Concurrency(limit.limit, name=f"{prefix}{name}", ttl=lease, paused=limit.paused).demand(*part)
        value = limit.rate_limit
        if callable(value):
            value = self._limit_from(value, part[0] if part else name)
        cost = limit.cost(self) if callable(limit.cost) else limit.cost
        made = core.RateLimit(value, name=f"{prefix}{name}", paused=limit.paused)
        if not isinstance(cost, int) or isinstance(cost, bool) or not 0 <= cost <= made.times:
            raise InvalidParameter("cost", cost, f"give a whole number from 0 to the limit, {made.times}")
        return made.demand(*part, cost=cost)

    def _limit_from(self, function: Callable[..., Any], key: str) -> tuple[int, float]:
        args, kwargs = self.arguments
        offered = {"key": key, "task": self.task, "args": args, "kwargs": kwargs}
        parameters = inspect.signature(function).parameters
        if not any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
            offered = {name: value for name, value in offered.items() if name in parameters}
        return core.parse_rate(function(**offered), parameter="rate_limit")

    def _given_key(self, key: Any) -> str:
        if callable(key):
            key = key(*self.arguments)
        if isinstance(key, bool) or not isinstance(key, (str, int)) or key == "":
            if inspect.iscoroutine(key):
                key.close()
            raise InvalidParameter("key", key, "let the key function return a non-empty text or a whole number")
        return str(key)

    def _part(self, value: Any) -> str:
        # Short plain values stay readable for the operator; repr keeps 1 and "1" apart.
        if type(value) in _PLAIN and len(text := repr(value)) <= 64:
            return text
        return self._digest({"": value})

    def _digest(self, values: dict[str, Any]) -> str:
        try:
            return call_digest(self.task.name, values)
        except InvalidParameter:
            # Not plain data: what the task's own serialiser makes of it, or that serialiser's error.
            _, _, data = dumps(values, serializer=self.task.serializer)
            return blake2b(data if isinstance(data, bytes) else data.encode(), digest_size=16).hexdigest()


def ttl_of(unique: Unique, settings: HeimdallSettings) -> float:
    """Seconds after which the next task of a key is accepted, whatever became of this one."""
    return unique.ttl if isinstance(unique.ttl, float) else settings.unique_timeout
