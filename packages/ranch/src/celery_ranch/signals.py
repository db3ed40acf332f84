"""Signals of ranch; connect to them as to Celery's own. The sender is the task's name."""

from __future__ import annotations

from celery.utils.dispatch import Signal

#: A task has entered its client's backlog; sent by whoever put it there.
#: Arguments: ``task_id``, ``lru_key``.
task_enqueued = Signal(name="task_enqueued", providing_args=["task_id", "lru_key"])

#: A worker has claimed a task; sent in its main process.
#: Arguments: ``task_id``, ``lru_key``, ``queue``, ``waited`` (seconds since it was enqueued or due).
task_claimed = Signal(name="task_claimed", providing_args=["task_id", "lru_key", "queue", "waited"])

#: A claimed task has left the worker; sent in its main process.
#: Arguments: ``task_id``, ``lru_key``, ``outcome`` (``done``, ``revoked``, ``expired``, ``requeued``, ``released``,
#: ``lost`` with its process, ``handed_back``), ``seconds`` that the body ran, or None.
task_settled = Signal(name="task_settled", providing_args=["task_id", "lru_key", "outcome", "seconds"])

#: A task was lost with as many workers as ``ranch_max_attempts`` allows; sent by the worker that found it. No sender.
#: Arguments: ``task_id``, ``attempts``.
task_dead = Signal(name="task_dead", providing_args=["task_id", "attempts"])
