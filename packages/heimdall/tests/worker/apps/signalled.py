"""The tasks of `ruled`, in workers that write every signal of heimdall into the event log."""

from __future__ import annotations

from celery.signals import worker_init
from ruled import app, dropped, late, slowly

import celery_heimdall
from celery_toolkit_testkit.events import log_event

__all__ = ["app", "dropped", "late", "slowly"]

SIGNALS = ("lock_lost", "task_deduplicated", "task_dropped", "task_rate_limited", "task_released", "task_woken")


@worker_init.connect
def listen(**_):
    for name in SIGNALS:

        def receive(sender, signal, name=name, **about):
            log_event(signal=name, task=sender.name, **about)

        getattr(celery_heimdall, name).connect(receive, weak=False)
