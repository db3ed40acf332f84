"""The last question before a body starts, in the process or thread that runs it: is the partition held still?

Between the main process, which has asked that already, and the body there may be a freeze of any length.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from threading import local
from typing import TYPE_CHECKING, Any, Protocol

from billiard.einfo import ExceptionInfo
from celery.exceptions import Reject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


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


class Gatehouse:
    """Stands before a pool: a call that is made with a guard starts only if that lets it.

    Celery's requests keep the pool's ``apply_async`` from when their class was made, so it is replaced in the pool
    itself, before any is made.

    Args:
        pool: Celery's pool.
    """

    def __init__(self, pool: Any) -> None:
        self._apply_async = pool.apply_async
        self._next = local()
        pool.apply_async = self._guarded

    @contextmanager
    def by(self, guard: Guard | None) -> Iterator[None]:
        """The call that this thread makes inside has this guard; for a pool of processes it is pickled."""
        self._next.guard = guard
        try:
            yield
        finally:
            self._next.guard = None

    def _guarded(
        self, target: Callable[..., Any], args: Sequence[Any] | None = None, *rest: Any, **options: Any
    ) -> Any:
        guard, self._next.guard = getattr(self._next, "guard", None), None
        if guard is not None:
            target, args = start, (guard, target, *(args or ()))
        return self._apply_async(target, args, *rest, **options)


def start(guard: Guard, target: Callable[..., Any], *args: Any) -> Any:
    """Run the body by Celery's `target`, or answer as that does for a task that rejects its message."""
    if guard():
        return target(*args)
    try:
        raise Reject("the lease of its partition has ended", requeue=True)
    except Reject:
        return 1, ExceptionInfo(), 0.0
