"""Limits in the user's own code: outside tasks, corrected after the fact, and changed while everything runs."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from celery import current_task
from celery._state import get_current_app

from celery_toolkit_core import limits as core
from celery_toolkit_core.errors import InvalidParameter

from .calls import Call
from .declarations import declared_limits
from .errors import HeimdallError
from .options import Concurrency, RateLimit
from .store import store_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import timedelta

    from celery import Celery

    from .claims import Claim
    from .declarations import Declared


@contextmanager
def limit(*limits: RateLimit | Concurrency, wait: float = 0.0, app: Celery | None = None) -> Iterator[core.Grant]:
    """Take limits around a block of plain code, in a task or outside; they are the tasks' limits of the same names.

    A place of a `Concurrency` lasts for ``heimdall_lease`` seconds; call ``renew()`` on what the block gets if it may
    take longer.

    Args:
        *limits: Limits with a name, without `by` and without functions.
        wait: Seconds to wait for room.
        app: The application whose Redis is meant; the current one when left out.

    Yields:
        A grant with ``settle(used)`` and ``renew()``.

    Raises:
        LimitReached: There was no room for `wait` seconds; see ``celery_toolkit_core.limits``.
        InvalidParameter: A limit says nothing without a task.
    """
    store = store_of(app or get_current_app())
    for each in limits:
        functions = (each.key, getattr(each, "rate_limit", None), getattr(each, "cost", None))
        if each.name is None or each.by is not None or any(callable(one) for one in functions):
            raise InvalidParameter("limits", each, "give a name, and no by and no functions: there is no call here")
    demands = Call(None).demands(limits, store.settings.rate_limit_prefix, store.settings.lease)
    with core.Limiter(store.client, store.space).hold(demands, wait=wait) as grant:
        yield grant


def settle(used: int, *, name: str | None = None) -> bool:
    """Say what the start of the current task cost in the end, such as the tokens of an answer.

    Args:
        used: The final cost; 0 gives the start back.
        name: The limit's name, when the task has several rate limits.

    Returns:
        Whether the start still counted.

    Raises:
        HeimdallError: There is no limited task here.
        InvalidParameter: The name is needed, or wrong.
    """
    claim = _current_claim()
    demand = _demand(claim, name)
    limiter = core.Limiter(claim.store.client, claim.store.space)
    return limiter.settle([core.Demand(demand.limit, demand.part, used)], stamp=claim.stamp) == 1


def penalize(retry_after: float | timedelta, *, name: str | None = None) -> None:
    """Let nothing start under the current task's limit for a time: the other side has answered 429.

    Args:
        retry_after: Seconds, or a timedelta; never shortens a time that was said before.
        name: The limit's name, when the task has several rate limits.

    Raises:
        HeimdallError: There is no limited task here.
        InvalidParameter: The name is needed, or wrong.
    """
    claim = _current_claim()
    core.Limiter(claim.store.client, claim.store.space).penalise([_demand(claim, name)], retry_after=retry_after)


def set_limit(
    name: str,
    value: str | tuple[int, float] | int | None,
    *,
    key: str | None = None,
    lasting: float | timedelta | None = None,
    app: Celery | None = None,
) -> None:
    """Put another value in force for a limit, for all tasks and workers and at once.

    Args:
        name: The limit's name: its own, its key's, or that of its task.
        value: Such as ``"120/m"``; a whole number for a `Concurrency`; ``"paused"``: nothing starts; ``"resumed"``: the
            value that is declared, even where it is declared as paused; None: all as declared.
        key: Only for this part of the limit. For `by`, the ``repr`` of the argument.
        lasting: Seconds, or a timedelta, until the declared value returns; until further notice when left out.
        app: The application whose Redis is meant; the current one when left out.

    Raises:
        InvalidParameter: The value cannot be meant, or not for a limit of this kind.
    """
    app = app or get_current_app()
    app.finalize()
    store = store_of(app)
    known = [each for each in declared_limits(app) if each.name == name]
    part = () if key is None else (key,)
    # A limit that no task here declares may be another program's, or have its name from a function.
    for owner, prefix in {(each.store, each.prefix) for each in known} or {(store, store.settings.rate_limit_prefix)}:
        limiter = core.Limiter(owner.client, owner.space)
        mine = [each for each in known if (each.store, each.prefix) == (owner, prefix)]
        for limit in _values(value, name, f"{prefix}{name}", mine):
            if value is None:
                limiter.restore(limit, *part)
            else:
                limiter.override(limit, *part, lasting=lasting)


def _values(
    value: str | tuple[int, float] | int | None, name: str, full: str, known: list[Declared]
) -> list[core.RateLimit | core.Concurrency]:
    kinds = {each.kind for each in known} or {"rate", "slots"}
    if value == "resumed":
        limits = {each.kind: each.limit for each in known if each.limit}
        if not limits:
            raise InvalidParameter("value", value, f"no task here declares the value of {name}; give the value itself")
        return list(limits.values())
    if value is None or value == "paused":
        both: dict[str, core.RateLimit | core.Concurrency] = {
            "rate": core.RateLimit("1/s", name=full, paused=True),
            "slots": core.Concurrency(1, name=full, paused=True),
        }
        return [both[kind] for kind in sorted(kinds)]
    wanted = "slots" if isinstance(value, int) else "rate"
    if wanted not in kinds:
        form = (
            "a whole number, as of a Concurrency" if wanted == "rate" else "a text such as '120/m', as of a RateLimit"
        )
        raise InvalidParameter("value", value, f"for {name} give {form}")
    if isinstance(value, int):
        return [core.Concurrency(value, name=full)]
    return [core.RateLimit(value, name=full)]


def _current_claim() -> Claim:
    claim: Claim | None = current_task.request.get("heimdall_claim") if current_task else None
    if claim is None:
        raise HeimdallError("there is no limited task here; call this in the body of one, in a worker")
    return claim


def _demand(claim: Claim, name: str | None) -> core.Demand:
    prefix = claim.task.heimdall_config.rate_limit_prefix or claim.store.settings.rate_limit_prefix
    wanted = None if name is None else f"{prefix}{name}"
    rates = [each for each in claim.demands if each.kind == "rate" and wanted in (None, each.limit.name)]
    if len(rates) != 1:
        raise InvalidParameter("name", name, "name one of the task's rate limits")
    return rates[0]
