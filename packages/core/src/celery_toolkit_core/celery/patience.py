"""Patience: what Celery sends for a task of its own accord must not be lost to a short outage.

The next step of a chain, a callback and a retry are sent by the process that has just run the body. Nobody is there to
try again: an error would fail a task that has done its work, and end its chain.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, TypeVar

from celery import current_task

from ..errors import RedisUnavailable
from ..log import event

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    T = TypeVar("T")

logger = logging.getLogger(__name__)

#: Seconds for which it is tried again, and between two tries.
PATIENCE, PAUSE = 30.0, 0.25


def outlast(options: Mapping[str, Any], send: Callable[..., T], *args: Any) -> T:
    """What `send` returns; tried again while Redis is away, if it is Celery that sends.

    Args:
        options: Of ``apply_async``.
        send: A part of that which may be repeated.
        *args: Its arguments.

    Raises:
        RedisUnavailable: Redis was away all the time.
    """
    # A body that calls another task says nothing of the root of the two.
    if not (options.get("root_id") or options.get("retries")) or not _is_in_body():
        return send(*args)
    end, told = time.monotonic() + PATIENCE, False
    while True:
        try:
            return send(*args)
        except RedisUnavailable as error:
            if time.monotonic() >= end:
                raise
            if not told:
                event(logger, logging.WARNING, "sending_waits_for_redis", error=str(error))
                told = True
            time.sleep(PAUSE)


def _is_in_body() -> bool:
    return bool(current_task) and not current_task.request.called_directly
