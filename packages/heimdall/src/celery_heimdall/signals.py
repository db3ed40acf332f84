"""Signals of heimdall; connect to them as to Celery's own."""

from __future__ import annotations

from celery.utils.dispatch import Signal

#: A call or a message was recognised as the duplicate of a task that holds its key.
#: Sender: the task. Arguments: ``task_id`` (None where no message exists), ``holder``.
task_deduplicated = Signal(name="task_deduplicated", providing_args=["task_id", "holder"])

#: A task was parked, for a limit or behind a running task of its key.
#: Sender: the task. Arguments: ``task_id``, ``wait`` (seconds until the next look).
task_rate_limited = Signal(name="task_rate_limited", providing_args=["task_id", "wait"])

#: A parked task goes on in this worker.
#: Sender: the task. Arguments: ``task_id``.
task_woken = Signal(name="task_woken", providing_args=["task_id"])

#: A task ended without having run, because a limit with ``strategy="drop"`` was full.
#: Sender: the task. Arguments: ``task_id``, ``limit``.
task_dropped = Signal(name="task_dropped", providing_args=["task_id", "limit"])

#: A task ended, or left the worker, and everything it held was given back; told by the thread that hears of it.
#: Sender: the task. Arguments: ``task_id``, ``outcome``.
task_released = Signal(name="task_released", providing_args=["task_id", "outcome"])

#: The lock or a place of a task that still runs was lost; its result is kept, but another may run beside it.
#: Sender: the task. Arguments: ``task_id``, ``key``.
lock_lost = Signal(name="lock_lost", providing_args=["task_id", "key"])
