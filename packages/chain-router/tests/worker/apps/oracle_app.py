"""Numbered tasks of a key, acknowledged late, one in hand at a time; a short lease."""

from __future__ import annotations

import time

from celery import Celery

from celery_chain_router import ChainRouter
from celery_toolkit_testkit.events import log_event

app = Celery("oracle")
app.conf.task_routes = router = ChainRouter(routing_key="key")
app.conf.chain_router_lease = 3.0
app.conf.task_acks_late = True
app.conf.worker_prefetch_multiplier = 1


@app.task(bind=True)
def work(self, key, number, seconds=0.005):
    worker = self.request.hostname.partition("@")[0]
    log_event(kind="start", number=number, key=key, worker=worker)
    time.sleep(seconds)
    log_event(kind="done", number=number, key=key, worker=worker)
