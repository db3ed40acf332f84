"""What the tasks of an application declare of limits: for operators, who know them by name."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from celery_toolkit_core import limits as core

from .options import Concurrency

if TYPE_CHECKING:
    from celery import Celery

    from .options import RateLimit
    from .store import Store


class Declared(NamedTuple):
    """One limit of one task.

    Attributes:
        store: Where it is counted.
        prefix: What stands before its name there.
        name: Its name as the user knows it; empty when a function gives it.
        kind: ``rate`` or ``slots``.
        parts: Whether each value of `by` or `key` has a limit of its own.
        limit: The limit as core takes it, as though it were not paused; None when a function gives its value or name.
        paused: Whether it is declared as paused.
    """

    store: Store
    prefix: str
    name: str
    kind: str
    parts: bool
    limit: core.RateLimit | core.Concurrency | None
    paused: bool

    def demand(self, *part: str) -> core.Demand:
        """One start under the limit as it is declared, paused or not."""
        assert self.limit is not None, "a function gives the value"
        if isinstance(self.limit, core.Concurrency):
            return replace(self.limit, paused=self.paused).demand(*part)
        pair = (self.limit.times, self.limit.per)
        return core.RateLimit(pair, name=self.limit.name, paused=self.paused).demand(*part)


def declared_limits(app: Celery) -> list[Declared]:
    """The limits of all tasks of an application; those that several tasks share stand there once."""
    found: dict[Declared, None] = {}
    for task in list(app.tasks.values()):
        options = getattr(task, "heimdall_config", None)
        for limit in options.limits if options else ():
            found[_declared(task, limit)] = None
    return list(found)


def limit_name(task: Any, demand: core.Demand) -> str:
    """The name of a limit as the user knows it: without the prefix."""
    return demand.limit.name.removeprefix(_prefix(task))


def _declared(task: Any, limit: RateLimit | Concurrency) -> Declared:
    store, prefix = task.heimdall_store, _prefix(task)
    name = limit.name or task.name
    if limit.key is not None and limit.name is None:
        name = "" if callable(limit.key) else limit.key
    parts = limit.by is not None or (limit.key is not None and limit.name is not None)
    made: core.RateLimit | core.Concurrency | None = None
    if isinstance(limit, Concurrency):
        kind = "slots"
        if name:
            made = core.Concurrency(limit.limit, name=f"{prefix}{name}", ttl=store.settings.lease)
    else:
        kind = "rate"
        if name and not callable(limit.rate_limit):
            made = core.RateLimit(limit.rate_limit, name=f"{prefix}{name}")
    return Declared(store, prefix, name, kind, parts, made, limit.paused)


def _prefix(task: Any) -> str:
    return str(task.heimdall_config.rate_limit_prefix or task.heimdall_store.settings.rate_limit_prefix)
