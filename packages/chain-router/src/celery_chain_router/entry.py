"""An entry: one message of a partition in a worker's hands, and what Celery's worker remembers of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from celery.worker import state

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery_toolkit_core.celery.deliveries import Delivery


class Entry:
    """One message of a partition, until its task has ended.

    Args:
        delivery: The message's way through the worker.
        partition: The partition of its queue.
        key: The hash of its key; ``None``: nobody knows it.

    Attributes:
        key: (partition, hash of the key), or ``None``.
        tag: The broker's delivery tag.
        stage: ``waiting`` for its key's turn; ``passed`` to Celery, which may keep it for a rate limit or an ETA;
            ``running``: given to the pool.
        has_eta: It waits for its moment, not in any line.
        is_cut_off: The connection over which it came is gone; nobody waits for its answer.
        ended: The moment at which its task ended, 0 before.
        go: What gives it to the pool, once it has a place there.
    """

    __slots__ = ("delivery", "ended", "go", "has_eta", "is_cut_off", "key", "partition", "stage", "tag")

    def __init__(self, delivery: Delivery, partition: int, key: int | None) -> None:
        self.delivery = delivery
        self.partition = partition
        self.key = None if key is None else (partition, key)
        self.tag: Any = delivery.message.delivery_tag
        self.stage: Literal["waiting", "passed", "running"] = "waiting"
        self.has_eta = bool(delivery.message.headers.get("eta"))
        self.is_cut_off = False
        self.ended = 0.0
        self.go: Callable[[], Any] | None = None


def is_taken_back(request: Any) -> bool:
    """Whether a request's message is no longer in this worker's hands."""
    return bool(request.__dict__.get("_taken_back"))


def take_back(request: Any, consumer: Any) -> None:
    """Make Celery's worker forget a request that waits for its ETA, for a rate limit or for the pool."""
    request.__dict__["_taken_back"] = True
    timer_entry = getattr(request, "_eta_timer_entry", None)  # from Celery 5.6 on; before, it comes due and is dropped
    if timer_entry is not None and request in getattr(state, "scheduled_requests", ()):
        consumer.timer.cancel(timer_entry)
        # The strategy had made room for it.
        consumer.qos.decrement_eventually()
    forget(request)


def forget(request: Any) -> None:
    """Take a request out of what the worker counts as reserved."""
    state.requests.pop(request.id, None)
    state.reserved_requests.discard(request)
    scheduled = getattr(state, "scheduled_requests", None)  # from Celery 5.6 on
    if scheduled is not None:
        scheduled.discard(request)
