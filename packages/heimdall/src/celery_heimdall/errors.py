"""What heimdall raises: one root, data as attributes, every error pickles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery_toolkit_core.errors import RedisError, ToolkitError
from celery_toolkit_core.limits import LimitReached

if TYPE_CHECKING:
    from collections.abc import Sequence


class HeimdallError(ToolkitError):
    """The root of all errors that heimdall raises on purpose."""


class AlreadyQueuedError(HeimdallError):
    """A task with the same key is queued or running, and the task asks for an error then.

    Attributes:
        likely_culprit: The id of the task that holds the key.
        expires_in: Seconds until the key is given to the next caller, even if that task never ends.
    """

    likely_culprit: str | None
    expires_in: float
    message: str

    def __init__(self, expires_in: float = 0.0, likely_culprit: str | None = None) -> None:
        super().__init__(
            f"task {likely_culprit or '(unknown)'} already has this key, for at most another {expires_in:.1f} seconds",
            expires_in=expires_in,
            likely_culprit=likely_culprit,
        )
        _show_data(self, expires_in, likely_culprit)

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args


class LimitExceeded(HeimdallError, LimitReached):
    """A limit with ``strategy="raise"`` had no room; the body did not run.

    Attributes:
        blocked_by: The name of the limit, alone in a tuple.
        retry_after: Seconds until it is expected to have room.
    """

    message: str

    def __init__(self, blocked_by: Sequence[str] = (), retry_after: float | None = None) -> None:
        names = ", ".join(blocked_by) or "(unknown)"
        super().__init__(
            f"no room under the limit {names} for another {retry_after or 0:.1f} seconds",
            blocked_by=tuple(blocked_by),
            retry_after=retry_after,
        )
        _show_data(self, list(blocked_by), retry_after)

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args


class TooFewReplicas(HeimdallError, RedisError):
    """A lock or a start was given back, because fewer replicas than ``heimdall_min_replicas`` had it in time.

    Attributes:
        server: The server without its password.
        wanted: How many replicas the setting asks for.
        found: How many had it.
    """

    wanted: int
    found: int

    def __init__(self, server: str, wanted: int, found: int) -> None:
        super().__init__(
            f"only {found} of {wanted} replicas of Redis at {server} have the lock; check their connection",
            server=server,
            wanted=wanted,
            found=found,
        )


class LimitRefused(HeimdallError):
    """A limit or key function of the user failed, or gave back what is no limit or key; the body did not run.

    Attributes:
        task: The name of the task.
    """

    task: str


def _show_data(error: Any, *data: Any) -> None:
    # A result backend that writes JSON keeps the class and its `args`, and makes the error anew from both.
    error.message = str(error.args[0])
    error.args = data
