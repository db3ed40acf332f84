"""The tasks of `guarded` and a few more, for what goes wrong around them."""

from __future__ import annotations

import os
import time

if skew := float(os.environ.get("CLOCK_SKEW", "0")):
    # A machine whose clock is wrong; before anybody takes a copy of the function.
    real_time = time.time
    time.time = lambda: real_time() + skew

from guarded import app, body, joined, plain, total, two_in_two, unique, unique_late

from celery_heimdall import HeimdallTask, RateLimit, Unique
from celery_toolkit_testkit.events import log_event

__all__ = ["app", "joined", "plain", "total", "two_in_two", "unique", "unique_late"]

app.conf.update(
    heimdall_stuck_after=2.0,
    worker_soft_shutdown_timeout=float(os.environ.get("SOFT_SHUTDOWN", "0")),
    worker_enable_soft_shutdown_on_idle=False,
)
app.conf.broker_write_url = os.environ.get("BROKER_WRITE_URL", app.conf.broker_write_url)
if timeout := os.environ.get("VISIBILITY"):
    app.conf.broker_transport_options = {"visibility_timeout": int(timeout)}


def limited(name, times, per, **options):
    @app.task(bind=True, base=HeimdallTask, heimdall={"times": times, "per": per}, name=name, **options)
    def task(self, number):
        stamp = self.request.heimdall_claim.stamp / 1e6
        retries = {"retries": self.request.retries, "max_retries": self.max_retries}
        log_event(task=name, number=number, stamp=stamp, **retries)
        return stamp

    return task


ten_per_second = limited("ten_per_second", 10, 1)
ten_per_ten = limited("ten_per_ten", 10, 10)
two_per_ten = limited("two_per_ten", 2, 10)
one_per_half = limited("one_per_half", 1, 0.5)
crowd = limited("crowd", 50, 0.5, ignore_result=True)


@app.task(bind=True, base=HeimdallTask, unique=Unique(by="key", ttl=0.5), name="hanging")
def hanging(self, key, seconds=0.0):
    return body(self, key, seconds)


@app.task(bind=True, base=HeimdallTask, limits=[RateLimit("1/h", name="gate")], name="gated")
def gated(self, number):
    return body(self, number, 0.0)


@app.task(bind=True, base=HeimdallTask, unique=Unique(by="key"), name="silent", ignore_result=True)
def silent(self, key, seconds=0.0):
    return body(self, key, seconds)


@app.task(bind=True, base=HeimdallTask, heimdall={"unique": True, "unique_raises": True, "key": "one"}, name="strict")
def strict(self, key, seconds=0.0):
    return body(self, key, seconds)


@app.task(name="heard")
def heard(task_id):
    log_event(what="heard", id=task_id)


@app.task(bind=True, base=HeimdallTask, unique=Unique(by="key", until="start"), name="from_start")
def from_start(self, key, seconds=0.0):
    return body(self, key, seconds)


@app.task(
    bind=True,
    base=HeimdallTask,
    unique=Unique(by="key", until="start"),
    limits=[RateLimit("100/s")],
    name="from_start_limited",
)
def from_start_limited(self, key, seconds=0.0):
    return body(self, key, seconds)


@app.task(
    bind=True,
    base=HeimdallTask,
    unique=Unique(by="key"),
    name="stubborn",
    autoretry_for=(ValueError,),
    retry_kwargs={"max_retries": 2, "countdown": 0.1},
    retry_backoff=False,
)
def stubborn(self, key):
    body(self, key, 0.0)
    if self.request.retries < 2:
        raise ValueError(key)
    return self.request.retries


@app.task(bind=True, base=HeimdallTask, unique=Unique(by="key"), name="last_act", acks_late=True)
def last_act(self, key):
    body(self, key, 0.0)
    if not self.request.delivery_info["redelivered"]:
        os.kill(os.getppid(), 9)


@app.task(name="by_hand")
def by_hand(key):
    return [unique(key), unique.apply((key,)).get(disable_sync_subtasks=False)]


@app.task(base=HeimdallTask, limits=[RateLimit("100/s", name="sizes")], name="sized")
def sized(text):
    return len(text)


@app.task(bind=True, base=HeimdallTask, unique=Unique(by="key"), name="stumbling", acks_late=True)
def stumbling(self, key):
    log_event(what="try", retries=self.request.retries)
    if not self.request.retries:
        raise self.retry(countdown=0.1)
    return body(self, key, 0.0)
