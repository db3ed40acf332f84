"""What ranch raises; every error carries its data as attributes and pickles."""

from __future__ import annotations

from celery_toolkit_core.errors import RedisError, ToolkitError


class RanchError(ToolkitError):
    """The root of all errors of ranch."""


class PayloadTooLarge(RanchError, ValueError):
    """The task's message is larger than ``ranch_max_payload``; nothing was written.

    Attributes:
        task: The task's name.
        size: Bytes of the message.
        limit: Bytes allowed.
    """

    task: str
    size: int
    limit: int


class BacklogFull(RanchError):
    """The client has as many tasks waiting as its limit allows; nothing was written.

    Attributes:
        lru_key: The client.
        waiting: Its tasks that wait.
    """

    lru_key: str
    waiting: int


class ClientDraining(BacklogFull):
    """The client is being drained: it takes no new tasks until somebody resumes it; nothing was written."""


class TooFewReplicas(RanchError, RedisError):
    """The task was taken back: fewer replicas than ``ranch_min_replicas`` had it within a second.

    Attributes:
        wanted: How many replicas the setting asks for.
        found: How many had it.
    """

    wanted: int
    found: int


class DeadTask(RanchError):
    """The task was lost with its worker as often as ``ranch_max_attempts`` allows, and is not tried again.

    Attributes:
        task_id: The task's id.
        attempts: How often a worker had it.
    """

    task_id: str
    attempts: int
