"""Tasks of the worker tests about rules that a user chooses; each says in the event log when its body runs."""

from __future__ import annotations

import ctypes
import os
import time

from celery import Celery

from celery_heimdall import Concurrency, HeimdallTask, RateLimit, Unique, current_fence
from celery_toolkit_testkit.events import log_event

app = Celery("ruled")
app.conf.update(
    heimdall_redis_url=os.environ.get("RULED_REDIS"),
    heimdall_on_redis_error=os.environ.get("RULED_ERROR", "raise"),
    heimdall_on_lock_lost=os.environ.get("RULED_LOST", "keep"),
    heimdall_lease=3.0,
    heimdall_sweep=0.5,
    broker_connection_retry_on_startup=True,
    # What a killed worker had not acknowledged comes again when the next one starts.
    broker_transport_options={"visibility_timeout": 2},
)


def body(task, key, seconds=0.0, **fields):
    log_event(what="begin", task=task.name, id=task.request.id, key=key, retries=task.request.retries, **fields)
    time.sleep(seconds)
    log_event(what="end", task=task.name, id=task.request.id, key=key)
    return key


@app.task(bind=True, base=HeimdallTask, unique=Unique(by="key"), name="late", acks_late=True)
def late(self, key, seconds=0.0):
    return body(self, key, seconds)


@app.task(
    bind=True, base=HeimdallTask, unique=Unique(by="key"), limits=[RateLimit("1/2s", strategy="retry")], name="again"
)
def again(self, key):
    return body(self, key, max_retries=self.max_retries)


@app.task(
    bind=True,
    base=HeimdallTask,
    unique=Unique(),
    limits=[RateLimit("1/h", name="rare", strategy="drop")],
    name="dropped",
)
def dropped(self, key):
    return body(self, key)


@app.task(bind=True, base=HeimdallTask, unique=Unique(), limits=[RateLimit("1/h", strategy="raise")], name="raised")
def raised(self, key):
    return body(self, key)


@app.task(
    bind=True,
    base=HeimdallTask,
    limits=[Concurrency(1, name="desk"), RateLimit("2/h", name="desk", strategy="raise")],
    name="mixed",
)
def mixed(self, key, seconds=0.0):
    return body(self, key, seconds)


@app.task(bind=True, base=HeimdallTask, limits=[RateLimit("100/s", name="stopped", paused=True)], name="paused")
def paused(self, key):
    return body(self, key)


@app.task(bind=True, base=HeimdallTask, heimdall={"times": 1, "per": 3}, name="slowly")
def slowly(self, key):
    return body(self, key)


@app.task(bind=True, base=HeimdallTask, limits=[RateLimit("100/s", name="room")], name="roomy")
def roomy(self, key, seconds=0.0):
    return body(self, key, seconds)


@app.task(name="total")
def total(values):
    return values


@app.task(bind=True, base=HeimdallTask, unique=Unique(by="key"), name="deaf")
def deaf(self, key, seconds):
    """A call into C that keeps the interpreter's lock: no other thread runs meanwhile."""
    log_event(what="begin", id=self.request.id, fence=current_fence())
    ctypes.PyDLL(None).sleep(seconds)
    log_event(what="end", id=self.request.id)
    return key
