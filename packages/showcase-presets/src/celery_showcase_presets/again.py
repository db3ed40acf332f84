"""A message that has ended is sent again under its own id: what the other packages must be told."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from celery_toolkit_core.log import event

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Celery

    from celery_toolkit_core.celery.messages import StoredMessage

logger = logging.getLogger(__name__)

# Heimdall's header, on messages of unique tasks only.
_KEY = "heimdall_key"


def publish_again(app: Celery, message: StoredMessage, publish: Callable[[], Any]) -> bool:
    """Publish a replayed message.

    Heimdall drops late copies of a task that has ended, and that is what a replay looks like: a unique task takes its
    key again first, as a new call does.

    Returns:
        Whether it was published; not so while another call of a unique task holds its key.
    """
    task: Any = app.tasks.get(message.task_name) if message.headers.get(_KEY) else None
    unique = task.heimdall_config.unique if task is not None and hasattr(task, "heimdall_config") else None
    if unique is None:
        publish()
        return True
    from celery_heimdall.calls import ttl_of
    from celery_heimdall.unique import lock_of

    lock = lock_of(task, message.headers[_KEY])
    answer = lock.reserve(message.task_id, 0, ttl_of(unique, lock.store.settings))
    if answer.holder is not None:
        event(
            logger,
            logging.WARNING,
            "replay_held_up",
            task=message.task_name,
            task_id=message.task_id,
            holder=answer.holder,
        )
        return False
    lock.around(message.task_id, answer, lambda _: publish())
    return True
