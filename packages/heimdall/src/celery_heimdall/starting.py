"""The start of a limited body, decided where and when it happens: in the pool's process."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, NoReturn

from celery.exceptions import Ignore

from celery_toolkit_core.errors import RedisError
from celery_toolkit_core.log import event

from .claims import Claim
from .errors import LimitExceeded
from .headers import ENTERED, KEY
from .unique import lock_of, mark_as_retry

if TYPE_CHECKING:
    from .calls import Call
    from .claims import Refusal

logger = logging.getLogger(__name__)

#: Seconds between two questions whether a body may start, while our Redis is away.
ASK_AGAIN = 1.0


class NotBegun(Ignore):
    """How a pool's process tells the worker that a body did not begin, and why.

    Args:
        how: ``parked``, ``stale`` or ``dropped``.
        wait: Seconds until the next look at a parked task.
        limit: The limit that a dropped one met.
    """

    def __init__(self, how: str, wait: float = 0.0, limit: str = "") -> None:
        super().__init__(how, wait, limit)


def start(task: Any, request: Any, token: str, call: Call) -> Claim:
    """The strict decision about a limited task, in the process and at the moment in which its body starts.

    Raises:
        NotBegun: The body may not start: the task is parked again, is dropped, or goes on under another token.
        LimitExceeded: Nor may it start, and the limit asks for an error then.
        RedisUnavailable: Our Redis did not answer for as long as a lease.
    """
    claim = Claim(task, call, request.get(KEY), request.id, request.retries or 0, token)
    settings = claim.store.settings
    give_up = time.monotonic() + settings.lease
    while True:
        try:
            verdict = claim.start()
            break
        except RedisError as error:
            if settings.on_redis_error == "run":
                return claim
            # To fail would be the end of a task that was accepted; the same question gets the same answer.
            if time.monotonic() > give_up:
                raise
            event(logger, logging.WARNING, "start_waits_for_redis", task_id=claim.task_id, error=str(error))
            time.sleep(ASK_AGAIN)
    if claim.refusal is not None:
        refuse(task, request, claim.refusal)
    if verdict == "parked" and claim.retries:
        mark_as_retry(task, request, claim.wait)
    if verdict != "go":
        raise NotBegun(verdict, claim.wait)
    return claim


def refuse_late(task: Any, request: Any, token: str) -> None:
    """Let no body start that another worker has taken over; asked only when the leases may have ended since it came.

    Raises:
        NotBegun: The task runs, has ended, or was tried again elsewhere.
    """
    store, label = task.heimdall_store, request.get(KEY)
    if not label or time.monotonic() - (request.get(ENTERED) or 0.0) < store.settings.lease:
        return
    try:
        is_stale = store.run("late", [lock_of(task, label).key], [request.id, token, request.retries or 0])
    except RedisError as error:
        event(logger, logging.WARNING, "late_start_not_checked", task_id=request.id, error=str(error))
        return
    if is_stale:
        raise NotBegun("stale")


def refuse(task: Any, request: Any, refusal: Refusal) -> NoReturn:
    """End a task that met a full limit, in the pool's process: by its strategy, so that links and chords hear of it.

    Raises:
        NotBegun: It is dropped.
        LimitExceeded: It fails.
    """
    if refusal.strategy == "raise":
        raise LimitExceeded((refusal.limit,), refusal.retry_after)
    task.backend.mark_as_revoked(
        request.id, f"the limit {refusal.limit} is full", request, store_result=not task.ignore_result
    )
    raise NotBegun("dropped", limit=refusal.limit)
