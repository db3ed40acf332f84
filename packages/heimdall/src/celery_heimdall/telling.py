"""What a worker tells the world of its unique and limited tasks: log lines, signals, and Celery's events.

Flower and everybody else who keeps a `celery.events.state.State` shows the states that follow from these events:
``task-parked`` (PARKED), ``task-woken``, ``task-deduplicated`` (DEDUPLICATED) and ``task-dropped`` (DROPPED).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from celery_toolkit_core.log import event

from .signals import task_deduplicated, task_dropped, task_rate_limited, task_woken

if TYPE_CHECKING:
    from celery_toolkit_core.celery.deliveries import Delivery

logger = logging.getLogger(__name__)


def parked(delivery: Delivery, task: Any, wait: float, *, retries: bool = False) -> None:
    """A task waits in Redis; the next look is in `wait` seconds."""
    event(logger, logging.INFO, "task_parked", task=task.name, task_id=delivery.task_id, wait=wait)
    if retries:
        _send(delivery, "task-retried", exception=f"heimdall: a limit is full for {wait:.1f} s", traceback="")
    else:
        _send(delivery, "task-parked", wait=wait)
    task_rate_limited.send(sender=task, task_id=delivery.task_id, wait=wait)


def woken(delivery: Delivery, task: Any) -> None:
    """A parked task goes on, in this worker."""
    event(logger, logging.DEBUG, "task_woken", task=task.name, task_id=delivery.task_id)
    _send(delivery, "task-woken")
    # Celery's State ranks a custom state above RECEIVED and STARTED, which would not show any more. RETRY is the only
    # state that all others may follow.
    _send(delivery, "task-retry")
    task_woken.send(sender=task, task_id=delivery.task_id)


def deduplicated(delivery: Delivery, task: Any, holder: str) -> None:
    """A message was a duplicate of `holder` and has ended."""
    event(logger, logging.INFO, "task_deduplicated", task=task.name, task_id=delivery.task_id, holder=holder)
    _send(delivery, "task-revoked", terminated=False, signum=None, expired=False)
    _send(delivery, "task-deduplicated", holder=holder)
    task_deduplicated.send(sender=task, task_id=delivery.task_id, holder=holder)


def dropped(delivery: Delivery, task: Any, limit: str) -> None:
    """A task has ended because a limit was full."""
    event(logger, logging.INFO, "task_dropped", task=task.name, task_id=delivery.task_id, limit=limit)
    _send(delivery, "task-revoked", terminated=False, signum=None, expired=False)
    _send(delivery, "task-dropped", limit=limit)
    task_dropped.send(sender=task, task_id=delivery.task_id, limit=limit)


def copy_dropped(delivery: Delivery, task: Any, why: str) -> None:
    """A second copy of a message was left, whose task is kept, has ended, or goes on under another token."""
    event(logger, logging.INFO, "copy_dropped", task=task.name, task_id=delivery.task_id, why=why)


def _send(delivery: Delivery, kind: str, **fields: Any) -> None:
    dispatcher = delivery.consumer.event_dispatcher
    if not dispatcher or not dispatcher.enabled:
        return
    headers = delivery.message.headers
    # What Celery's own task-received has: for a task that a worker parks, this is the first that is heard of it.
    about = {name: headers.get(name) for name in ("root_id", "parent_id", "retries", "eta", "expires")}
    about |= {"args": headers.get("argsrepr"), "kwargs": headers.get("kwargsrepr")}
    dispatcher.send(kind, uuid=delivery.task_id, name=headers.get("shadow") or delivery.task_name, **about, **fields)
