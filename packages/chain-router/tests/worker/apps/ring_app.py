"""Workers that join by themselves; a short lease."""

from __future__ import annotations

import json
import os
import time

from celery import Celery

from celery_chain_router import ChainRouter
from celery_toolkit_testkit.events import log_event

app = Celery("ring")
app.conf.task_routes = [{"elsewhere.*": {"queue": "elsewhere"}}, ChainRouter(routing_key="key")]
app.conf.chain_router_lease = float(os.environ.get("LEASE", "3"))
app.conf.worker_prefetch_multiplier = 1
app.conf.update(json.loads(os.environ.get("SETTINGS", "{}")))
router = app.conf.task_routes[1]


@app.task(bind=True)
def work(self, number, key, seconds=0.0):
    time.sleep(seconds)
    log_event(kind="done", number=number, key=key, worker=self.request.hostname.partition("@")[0])


@app.task(bind=True)
def hand_on(self, key, number, heir):
    log_event(kind="handed on", key=key, worker=self.request.hostname.partition("@")[0])
    raise self.replace(work.si(number, heir))


@app.task(bind=True, max_retries=None)
def try_again(self, key, path):
    log_event(kind="try", key=key, worker=self.request.hostname.partition("@")[0])
    if not os.path.exists(path):  # noqa: PTH110  # a task, not a test
        raise self.retry(countdown=0.3)
