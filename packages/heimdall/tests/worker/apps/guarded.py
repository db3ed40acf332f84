"""Tasks of the worker tests; each says in the event log when its body begins and ends."""

from __future__ import annotations

import os
import time

from celery import Celery
from celery.exceptions import Ignore, Reject

from celery_heimdall import Concurrency, HeimdallTask, RateLimit, Unique, current_fence, penalize, settle
from celery_toolkit_testkit.events import log_event

app = Celery("guarded")
app.conf.update(
    # Some tests put a proxy between us and our Redis.
    heimdall_redis_url=os.environ.get("GUARDED_REDIS"),
    # Long where a test must not take the end of a lease for a release.
    heimdall_lease=float(os.environ.get("GUARDED_LEASE", "3")),
    heimdall_sweep=0.5,
    heimdall_wake_timeout=3.0,
    worker_prefetch_multiplier=4,
    broker_connection_retry_on_startup=True,
)


def body(task, key, seconds, **fields):
    claim = task.request.get("heimdall_claim")
    fields |= {"fence": current_fence(), "stamp": claim.stamp if claim else None}
    log_event(what="begin", task=task.name, id=task.request.id, key=key, **fields)
    time.sleep(seconds)
    log_event(what="end", task=task.name, id=task.request.id, key=key)
    return f"{key} by {task.request.id}"


@app.task(bind=True, base=HeimdallTask, unique=Unique(by="key"), name="unique")
def unique(self, key, seconds=0.0):
    return body(self, key, seconds)


@app.task(bind=True, base=HeimdallTask, unique=Unique(by="key"), name="unique_late", acks_late=True)
def unique_late(self, key, seconds=0.0):
    return body(self, key, seconds)


@app.task(bind=True, base=HeimdallTask, heimdall={"unique": True}, name="retrying", max_retries=3)
def retrying(self, key, times=1):
    body(self, key, 0.0, retries=self.request.retries, max_retries=self.max_retries)
    if self.request.retries < times:
        raise self.retry(countdown=0.1)
    return self.request.retries


@app.task(bind=True, base=HeimdallTask, heimdall={"unique": True}, name="ending")
def ending(self, key, how):
    body(self, key, 0.0)
    if how == "failure":
        raise ValueError(how)
    if how == "ignore":
        raise Ignore
    if how == "reject":
        raise Reject("no", requeue=False)
    if how == "child killed":
        os.kill(os.getpid(), 9)
    time.sleep(60 if how == "long" else 0)


@app.task(bind=True, base=HeimdallTask, unique=Unique(by="key", ttl=0.5), name="brief")
def brief(self, key, seconds=0.0):
    return body(self, key, seconds)


@app.task(
    bind=True,
    base=HeimdallTask,
    heimdall={"unique": True, "unique_timeout": 60, "unique_wait_for_expiry": True},
    name="interval",
)
def interval(self, key):
    return body(self, key, 0.0)


@app.task(bind=True, base=HeimdallTask, unique=Unique(until="start", while_executing=True), name="one_waits")
def one_waits(self, key, seconds=0.0):
    return body(self, key, seconds)


@app.task(bind=True, base=HeimdallTask, unique=Unique(by="key", on_conflict="join"), name="joined")
def joined(self, key, seconds=0.0, fail=False):
    answer = body(self, key, seconds)
    if fail:
        raise ValueError(key)
    return answer


@app.task(bind=True, base=HeimdallTask, heimdall={"times": 10, "per": 1}, name="ten_a_second")
def ten_a_second(self, number):
    return body(self, number, 0.0, retries=self.request.retries, max_retries=self.max_retries)


@app.task(bind=True, base=HeimdallTask, heimdall={"times": 1, "per": 0.5}, name="one_in_half")
def one_in_half(self, number):
    return body(self, number, 0.0)


@app.task(bind=True, base=HeimdallTask, heimdall={"times": 2, "per": 2}, name="two_in_two")
def two_in_two(self, number):
    return body(self, number, 0.0)


@app.task(bind=True, base=HeimdallTask, heimdall={"times": 2, "per": 1, "unique": True}, name="unique_limited")
def unique_limited(self, number, times=0):
    body(self, number, 0.0, retries=self.request.retries)
    if self.request.retries < times:
        raise self.retry(countdown=0.05)
    return number


@app.task(bind=True, base=HeimdallTask, limits=[Concurrency(2, name="pair")], name="two_at_once")
def two_at_once(self, number, seconds):
    return body(self, number, seconds)


@app.task(bind=True, base=HeimdallTask, limits=[RateLimit("1/2s", by="tenant")], name="per_tenant")
def per_tenant(self, tenant):
    return body(self, tenant, 0.0)


def limit_of(kwargs):
    return kwargs["limit"]


@app.task(bind=True, base=HeimdallTask, heimdall={"rate_limit": RateLimit(limit_of)}, name="dynamic")
def dynamic(self, limit):
    return body(self, 0, 0.0)


@app.task(name="total")
def total(values):
    return len(values)


@app.task(name="plain")
def plain(value=None):
    return value


@app.task(
    bind=True,
    base=HeimdallTask,
    limits=[RateLimit("10/3s", name="tokens", cost=lambda call: call.kwargs["tokens"])],
    name="costly",
)
def costly(self, number, tokens, used=None, stop=None):
    if used is not None:
        log_event(what="settled", counted=settle(used))
    if stop is not None:
        penalize(stop)
    return body(self, number, 0.0)
