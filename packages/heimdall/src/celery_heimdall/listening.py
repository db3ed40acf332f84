"""The answers to what a worker gives back: read with its next question, or soon after by the keeper's thread.

A key is free when the server has read the word, not when the worker has read the answer. So the worker does not wait
for that: the next task is asked for at once, and one round trip brings both answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .store import stores

if TYPE_CHECKING:
    from celery import Celery

    from celery_toolkit_core.keeper import Job, Keeper

#: Seconds in which a next question may come along; and between two looks where nobody has asked for one.
SOON, IDLE = 0.01, 60.0


class Listener:
    """Reads the answers that nobody has read, in a worker."""

    def __init__(self) -> None:
        self._job: Job | None = None

    @property
    def is_there(self) -> bool:
        """Whether somebody reads the answers in this process."""
        return self._job is not None

    def start(self, app: Celery, keeper: Keeper) -> None:
        """Read those of an application from now on."""
        self._job = keeper.every(IDLE, lambda: hear(app))

    def listen(self) -> None:
        """There is an answer to be read."""
        if self._job is not None:
            self._job.soon(SOON)

    def stop(self, app: Celery) -> None:
        """Read what is left, and no more after that."""
        self._job = None
        hear(app)


def hear(app: Celery) -> None:
    """Read the answers of all stores of an application."""
    for store in stores(app):
        store.hear()


#: This process's.
listener = Listener()
