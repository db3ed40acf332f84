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


def publish_again(app: Celery, message: StoredMessage, publish: Callable[[], Any]) -> bool:
    """Publish a replayed message; heimdall is asked about those of its tasks.

    Returns:
        Whether it was published; not so while another call of a unique task holds its key.
    """
    task: Any = app.tasks.get(message.task_name)
    if not hasattr(task, "heimdall_config"):
        publish()
        return True
    from celery_heimdall import republish

    holder = republish(task, message, publish)
    if holder is not None:
        event(
            logger,
            logging.WARNING,
            "replay_held_up",
            task=message.task_name,
            task_id=message.task_id,
            holder=holder,
        )
    return holder is None
