"""A task that is fair and limited at once."""

from __future__ import annotations

import os

from celery import Celery

from celery_heimdall import HeimdallTask
from celery_ranch import lru_task
from celery_toolkit_testkit import log_event

app = Celery("woken_turns", broker=os.environ["CELERY_BROKER_URL"], backend=os.environ["CELERY_RESULT_BACKEND"])
app.conf.update(worker_prefetch_multiplier=1, task_acks_late=True, worker_hijack_root_logger=False)


@lru_task(app, base=HeimdallTask, heimdall={"times": 1, "per": 2})
def limited(number):
    log_event(what="start", number=number)
    return number


@lru_task(app)
def free(number):
    log_event(what="start", number=number)
    return number
