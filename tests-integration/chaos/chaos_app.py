"""The application that the chaos run torments: its tasks note what they did in a file outside Redis."""

from __future__ import annotations

import os
import time

from celery import Celery

from celery_heimdall import HeimdallTask, current_fence
from celery_heimdall.signals import task_deduplicated
from celery_ranch import RanchTask
from celery_toolkit_testkit import log_event

LEASE = 3.0
LIMIT_TIMES, LIMIT_PER = 20, 2.0

app = Celery("chaos", broker=os.environ["CHAOS_BROKER"], backend=os.environ["CHAOS_BACKEND"])
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    # Only what ranch does not hold comes back this way: nothing waits for it here.
    broker_transport_options={"visibility_timeout": 3600},
    broker_connection_retry_on_startup=True,
    result_expires=600,
    toolkit_redis_url=os.environ["CHAOS_STATE"],
    ranch_lease=LEASE,
    # The killer takes whom it meets: no task shall die of bad luck.
    ranch_max_attempts=50,
    heimdall_lease=LEASE,
    heimdall_sweep=1.0,
    heimdall_wake_timeout=5.0,
)


@task_deduplicated.connect(weak=False)
def turned_away(sender: object, task_id: str, holder: str, **extra: object) -> None:
    """A killed task's key may belong to a later one when it comes back: then that one does the work."""
    log_event(what="turned away", id=task_id, holder=holder)


class FairJob(RanchTask, HeimdallTask):
    """A task that is fair between clients, and unique or limited as its options say."""

    abstract = True


def work(kind: str, key: str, number: int, task_id: str) -> None:
    """Note the start, be busy for a moment, note the end."""
    log_event(what="start", kind=kind, key=key, number=number, id=task_id, fence=current_fence())
    time.sleep(0.02)
    log_event(what="end", kind=kind, key=key, number=number, id=task_id)


@app.task(base=FairJob, bind=True)
def fair(self: FairJob, client: str, number: int) -> None:
    """One of a client's many tasks."""
    work("fair", client, number, self.request.id)


@app.task(base=FairJob, bind=True, heimdall={"unique": True, "key": lambda args, kwargs: f"one-{args[0]}"})
def single(self: FairJob, key: str, number: int) -> None:
    """At most one of a key at a time."""
    work("single", key, number, self.request.id)


@app.task(base=FairJob, bind=True, heimdall={"times": LIMIT_TIMES, "per": LIMIT_PER})
def limited(self: FairJob, client: str, number: int) -> None:
    """Never faster than allowed."""
    work("limited", client, number, self.request.id)
