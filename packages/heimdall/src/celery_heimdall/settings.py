"""What users may set in the Celery configuration, each key with the prefix ``heimdall_``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from celery_toolkit_core import parameters
from celery_toolkit_core.settings import setting


@dataclass(frozen=True)
class HeimdallSettings:
    """The settings; times are seconds."""

    #: Our Redis; else ``toolkit_redis_url``, the result backend, or the broker, the first that is a Redis.
    redis_url: str | None = setting(None, parameters.text)
    #: The first part of every key of ours.
    namespace: str = setting("heimdall", parameters.text)
    #: When the next task of a key is accepted whatever became of the last, unless the task says otherwise.
    unique_timeout: float = setting(3600.0, parameters.seconds)
    #: Whether a duplicate raises `AlreadyQueuedError`, unless the task says otherwise.
    unique_raises: bool = setting(False, parameters.flag)
    #: Known from celery-heimdall 1.0; without effect, because a duplicate never waits here.
    unique_lock_timeout: float = setting(1.0, partial(parameters.seconds, zero=True))
    #: Likewise without effect.
    unique_lock_blocking: bool = setting(True, parameters.flag)
    #: Parts the keys of unique tasks: tasks with different prefixes never exclude each other.
    lock_prefix: str = setting("h-lock:", parameters.text)
    #: Parts the limits likewise.
    rate_limit_prefix: str = setting("h-rate:", parameters.text)
    #: How long a dead worker's locks and places outlive it.
    lease: float = setting(30.0, parameters.seconds)
    #: How often each worker looks for work that dead workers left behind.
    sweep: float = setting(5.0, parameters.seconds)
    #: How long a woken task may be on its way back to a worker before it is woken anew.
    wake_timeout: float = setting(60.0, parameters.seconds)
    #: The age from which a body counts as hung (or its task's timeout, if that is longer).
    stuck_after: float = setting(3600.0, parameters.seconds)
    #: What happens when our Redis does not answer: ``raise``, or ``run`` without protection.
    on_redis_error: str = setting("raise", lambda name, value: parameters.one_of(name, value, ("raise", "run")))
    #: What happens to a body whose lock or place is lost: ``keep``: it goes on, or ``abort``: it is terminated.
    on_lock_lost: str = setting("keep", lambda name, value: parameters.one_of(name, value, ("keep", "abort")))
    #: How many replicas must have a lock or a start before it counts; costs its caller their answer as well.
    min_replicas: int = setting(0, partial(parameters.count, least=0))
