"""The queue of a task follows from its base class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import current_app

from .tasks import PresetTask

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["preset_queue"]


def preset_queue(
    name: str,
    args: object = None,
    kwargs: object = None,
    options: Mapping[str, Any] | None = None,
    task: object = None,
    **extra: object,
) -> dict[str, str] | None:
    """A router for ``task_routes``: ``heavy`` or ``light`` for tasks with one of our bases, no opinion on others.

    A ``queue`` attribute on the task would say the same, but Celery ranks it above every router, so that no other
    router could send the task to a place of its own.
    """
    if task is None:
        # send_task() knows only the name.
        task = current_app.tasks.get(name)
    return {"queue": task.pool} if isinstance(task, PresetTask) else None
