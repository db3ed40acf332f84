"""Every message says when it was sent, so that the age of the oldest can be told."""

from __future__ import annotations

import time
from typing import Any

from celery.signals import before_task_publish

__all__ = ["stamp_messages"]


def stamp_messages() -> None:
    """From now on, put the time of sending on what this process publishes: AMQP's own ``timestamp``, whole seconds."""
    before_task_publish.connect(_stamp, weak=False, dispatch_uid="celery_showcase_presets.stamp")


def _stamp(properties: dict[str, Any] | None = None, **_: Any) -> None:
    if properties is not None:
        properties.setdefault("timestamp", int(time.time()))
