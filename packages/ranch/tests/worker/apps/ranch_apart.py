"""The application of tests whose backlog, broker and results are on servers, or behind proxies, of their own."""

from __future__ import annotations

import os
import time
from pathlib import Path

if skew := float(os.environ.get("CLOCK_SKEW", "0")):
    # A machine whose clock is wrong; before anybody takes a copy of the function.
    real_time = time.time
    time.time = lambda: real_time() + skew

from celery import Celery
from celery.signals import before_task_publish

from celery_ranch import lru_task
from celery_toolkit_testkit import log_event

app = Celery("ranch_apart", broker=os.environ["CELERY_BROKER_URL"], backend=os.environ["CELERY_RESULT_BACKEND"])
app.conf.update(
    worker_prefetch_multiplier=1,
    task_acks_late=os.environ.get("ACKS_LATE", "1") == "1",
    task_reject_on_worker_lost=True,
    broker_connection_retry_on_startup=True,
    worker_soft_shutdown_timeout=float(os.environ.get("SOFT_SHUTDOWN", "0")),
    result_backend_transport_options={"retry_policy": {"timeout": 30}},
    ranch_redis_url=os.environ.get("RANCH_URL") or None,
    ranch_lease=float(os.environ.get("RANCH_LEASE", "30")),
    # A chaos of kills may take the same task with it more often than any release would allow by default.
    ranch_max_attempts=50,
)


@before_task_publish.connect(weak=False, dispatch_uid="ranch_apart")  # once, however often this is imported
def published(sender=None, **_):
    log_event(what="published", task=sender)


@lru_task(app, bind=True)
def work(self, text, seconds=0.0):
    log_event(what="start", text=text, id=self.request.id)
    time.sleep(seconds)
    log_event(what="end", text=text, id=self.request.id)
    return text


@lru_task(app)
def hold(text, path):
    log_event(what="start", text=text)
    while not Path(path).exists():
        time.sleep(0.05)
    return text


@lru_task(app, lru_cost="runtime")
def timed(text, seconds):
    begin = time.monotonic()
    time.sleep(seconds)
    log_event(what="timed", text=text, seconds=time.monotonic() - begin)


@lru_task(app, bind=True)
def stumble(self, path):
    log_event(what="start", retries=self.request.retries)
    while not Path(path).exists():
        time.sleep(0.05)
    if not self.request.retries:
        raise self.retry(countdown=0)
    return self.request.retries
