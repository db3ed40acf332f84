"""An application whose state lies behind sentinels; broker and results are elsewhere."""

from __future__ import annotations

import os
import time

from celery import Celery

from celery_heimdall import HeimdallTask
from celery_ranch import RanchTask
from celery_toolkit_testkit import log_event

app = Celery("failover")
app.conf.update(
    toolkit_redis_url=os.environ["STATE_URL"],
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    heimdall_lease=3.0,
    heimdall_sweep=1.0,
    ranch_lease=3.0,
)


class Job(HeimdallTask, RanchTask):
    abstract = True


@app.task(base=Job, bind=True, heimdall={"unique": True, "key": lambda args, kwargs: f"one-{args[0]}"})
def single(self, key, seconds=0.0):
    log_event(what="start", key=key, id=self.request.id)
    time.sleep(seconds)
    log_event(what="end", key=key, id=self.request.id)
    return key
