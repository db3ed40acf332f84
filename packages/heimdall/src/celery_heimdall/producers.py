"""Celery's producer, taken while the answer about a key is on its way and not after it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from kombu.exceptions import LimitExceeded

if TYPE_CHECKING:
    from celery import Celery


class EarlyProducer:
    """The producer for one call; use it with ``with``, which gives back what was taken.

    Args:
        app: The application.
        given: The caller's own.

    Attributes:
        producer: The producer, or None: then Celery takes one itself.
    """

    __slots__ = ("_app", "_is_ours", "producer")

    def __init__(self, app: Celery, given: Any) -> None:
        self._app, self.producer, self._is_ours = app, given, False

    def take(self) -> None:
        """Take one of the application's pool, if there is one at hand: to wait for one is Celery's business."""
        if self.producer is None:
            with suppress(LimitExceeded):
                self.producer = self._app.producer_pool.acquire(block=False)
                self._is_ours = True

    def __enter__(self) -> EarlyProducer:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._is_ours:
            self.producer.release()
