"""The application of most worker tests."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from celery import Celery, shared_task
from celery.exceptions import Ignore, Reject

from celery_ranch import RanchTask, lru_task, signals
from celery_toolkit_testkit import log_event

app = Celery("ranch_fair", broker=os.environ["CELERY_BROKER_URL"], backend=os.environ["CELERY_RESULT_BACKEND"])
app.conf.update(
    worker_prefetch_multiplier=1,
    task_acks_late=os.environ.get("ACKS_LATE", "1") == "1",
    task_reject_on_worker_lost=True,
    worker_disable_prefetch=os.environ.get("DISABLE_PREFETCH") == "1",
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    ranch_redis_url=os.environ.get("RANCH_URL"),
    ranch_lease=float(os.environ.get("RANCH_LEASE", "30")),
    ranch_max_attempts=int(os.environ.get("RANCH_ATTEMPTS", "3")),
)
if "RANCH_METRICS_PORT" in os.environ:
    app.conf.update(ranch_metrics_enabled=True, ranch_metrics_port=int(os.environ["RANCH_METRICS_PORT"]))
if "RANCH_TYPO" in os.environ:
    app.conf.ranch_leese = 3
if "RANCH_SIGNALS" in os.environ:

    @signals.task_claimed.connect(weak=False)
    def claimed(waited, **_):
        log_event(what="claimed", waited=waited)

    @signals.task_settled.connect(weak=False)
    def settled(lru_key, outcome, **_):
        log_event(what="settled", lru_key=lru_key, outcome=outcome)


@lru_task(app)
def note(text, seconds=0.0):
    log_event(what="note", text=text)
    time.sleep(seconds)
    return text


@lru_task(app, bind=True)
def slow(self, text, seconds):
    log_event(what="start", text=text, id=self.request.id)
    time.sleep(seconds)
    log_event(what="end", text=text, id=self.request.id)
    return text


@lru_task(app)
def add(x, y):
    return x + y


@lru_task(app)
def total(numbers):
    return sum(numbers)


@lru_task(app)
def fail(text):
    raise ValueError(text)


@lru_task(app, bind=True, max_retries=3)
def stumble(self, times, countdown=0):
    log_event(what="stumble", retries=self.request.retries, key=self.request.headers.get("ranch_key"))
    if self.request.retries < times:
        raise self.retry(countdown=countdown)
    return self.request.retries


@lru_task(app, bind=True)
def refuse(self):
    again = self.request.delivery_info.get("redelivered")
    log_event(what="refuse", again=again)
    count = app.backend.client.incr("refused")
    if count < 3:
        raise Reject("not yet", requeue=True)
    return count


@lru_task(app)
def ignore():
    raise Ignore()


@lru_task(app)
def die_once(path):
    log_event(what="die")
    if not Path(path).exists():
        Path(path).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


@lru_task(app)
def die():
    log_event(what="die")
    os.kill(os.getpid(), signal.SIGKILL)


@lru_task(app)
def parent(text):
    note.delay(text)
    return text


@lru_task(app, on_full="drop")
def scatter(times):
    if times:
        log_event(what="scattered", states=[scatter.delay(0).state for _ in range(times)])


@lru_task(app, bind=True)
def headers(self):
    return self.request.headers


@lru_task(app, lru_key="customer_id")
def by_argument(customer_id):
    log_event(what="by_argument", customer=customer_id)
    return customer_id


@shared_task(base=RanchTask)
def shared(text):
    return text


@app.task
def plain(text):
    return text


@app.task
def record(value):
    log_event(what="record", value=str(value))
    return value


@app.task
def record_error(request, exc, traceback):
    log_event(what="record_error", value=str(exc))


NO_WEIGHTS = {"nan": float("nan"), "infinite": float("inf"), "zero": 0, "minus": -1.0, "text": "2", "flag": True}


def by_impact(lru_key, metadata):
    if lru_key == "broken":
        raise RuntimeError("no weight")
    log_event(what="asked", key=lru_key, before=metadata.timestamp, weight=metadata.weight, tags=metadata.tags)
    if lru_key in NO_WEIGHTS:
        return NO_WEIGHTS[lru_key]
    return metadata.custom_data["impact"] if metadata.custom_data else 1.0


@lru_task(app, weight_function=by_impact)
def weighed(text):
    log_event(what="weighed", text=text)
