"""Globally unique Celery tasks, global rate and concurrency limits."""

from __future__ import annotations

from importlib.metadata import version

from .errors import AlreadyQueuedError, HeimdallError, LimitExceeded, LimitRefused, TooFewReplicas
from .limits import limit, penalize, set_limit, settle
from .options import Concurrency, RateLimit, Strategy, Unique
from .signals import lock_lost, task_deduplicated, task_dropped, task_rate_limited, task_released, task_woken
from .task import HeimdallTask, current_fence
from .unique import republish

__all__ = [
    "AlreadyQueuedError",
    "Concurrency",
    "HeimdallError",
    "HeimdallTask",
    "LimitExceeded",
    "LimitRefused",
    "RateLimit",
    "Strategy",
    "TooFewReplicas",
    "Unique",
    "current_fence",
    "limit",
    "lock_lost",
    "penalize",
    "republish",
    "set_limit",
    "settle",
    "task_deduplicated",
    "task_dropped",
    "task_rate_limited",
    "task_released",
    "task_woken",
]

__version__ = version("celery-toolkit-heimdall")
