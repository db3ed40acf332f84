"""What heimdall raises: one root, data as attributes, every error pickles."""

from __future__ import annotations

from celery_toolkit_core.errors import ToolkitError


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

    def __init__(self, expires_in: float = 0.0, likely_culprit: str | None = None) -> None:
        super().__init__(
            f"task {likely_culprit or '(unknown)'} already has this key, for at most another {expires_in:.1f} seconds",
            expires_in=expires_in,
            likely_culprit=likely_culprit,
        )


class LimitRefused(HeimdallError):
    """A limit or key function of the user failed, or gave back what is no limit or key; the body did not run.

    Attributes:
        task: The name of the task.
    """

    task: str
