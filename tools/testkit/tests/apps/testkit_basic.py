"""The smallest application: it logs what its tasks do."""

from __future__ import annotations

import time

from celery import Celery

from celery_toolkit_testkit import log_event

app = Celery("testkit_basic")


@app.task
def add(x, y):
    log_event(what="add", total=x + y)
    return x + y


@app.task
def sleep(seconds):
    log_event(what="sleep")
    time.sleep(seconds)
    log_event(what="woke")
