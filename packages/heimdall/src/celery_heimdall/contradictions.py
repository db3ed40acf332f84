"""Options that are fine each by itself and mean nothing together: refused where the task is declared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery_toolkit_core.errors import InvalidParameter

from .options import RateLimit

if TYPE_CHECKING:
    from .options import Options

#: What the dict says of its own ``unique``.
_OF_UNIQUE = ("unique_timeout", "unique_wait_for_expiry")


def refuse(cls: type[Any], options: Options) -> None:
    """Refuse options of one task that contradict each other.

    Args:
        cls: The task's class.
        options: Its options.

    Raises:
        InvalidParameter: Of the one of them that can be left out or changed.
    """
    given = cls.heimdall or {}
    meaningless = [] if "unique" in given else [name for name in _OF_UNIQUE if name in given]
    if "unique_raises" in given and "unique" not in given and options.unique is None:
        meaningless.append("unique_raises")
    for name in meaningless:
        raise InvalidParameter(name, given[name], "it says nothing without 'unique': True in the same dict")
    if options.unique is not None and options.unique.on_conflict == "join" and getattr(cls, "ignore_result", None):
        raise InvalidParameter("on_conflict", "join", "a task with ignore_result=True has no result to join")
    seen: set[Any] = set()
    for limit in options.limits:
        if isinstance(limit, RateLimit) and isinstance(limit.rate_limit, tuple) and not callable(limit.cost):
            times = limit.rate_limit[0]
            if limit.cost > times and not limit.paused:
                raise InvalidParameter("cost", limit.cost, f"no start could ever fit into a limit of {times}")
        # Each limit counts under its name: two of one name would count every start twice.
        place = (type(limit), limit.name, limit.by, limit.key)
        if place in seen:
            raise InvalidParameter("limits", limit, "another limit of the task counts under this name: give it a name")
        seen.add(place)
