"""The last question before a body starts, in the process or thread that runs it: is the partition held still?

Between the main process, which has asked that already, and the body there may be a freeze of any length.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from billiard.einfo import ExceptionInfo
from celery.exceptions import Reject

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Guard(Protocol):
    """Whether a body may start."""

    def __call__(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Until:
    """A moment of this machine's monotonic clock, which all its processes share and no freeze stops.

    Attributes:
        moment: Until then a body may start.
    """

    moment: float

    def __call__(self) -> bool:
        """Whether the moment is still to come."""
        return time.monotonic() < self.moment


class GuardedPool:
    """A pool that asks the guard first.

    Args:
        pool: Celery's pool.
        guard: What to ask; for a pool of processes it is pickled.
    """

    def __init__(self, pool: Any, guard: Guard) -> None:
        self._pool = pool
        self._guard = guard

    def apply_async(self, target: Callable[..., Any], args: Sequence[Any] = (), **options: Any) -> Any:
        """Run it in the pool, if the guard lets it."""
        return self._pool.apply_async(start, args=(self._guard, target, *args), **options)


def start(guard: Guard, target: Callable[..., Any], *args: Any) -> Any:
    """Run the body by Celery's `target`, or answer as that does for a task that rejects its message."""
    if guard():
        return target(*args)
    try:
        raise Reject("the lease of its partition has ended", requeue=True)
    except Reject:
        return 1, ExceptionInfo(), 0.0
