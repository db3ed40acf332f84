"""Tasks that are routed by their key and limited; one of them is fair as well."""

from __future__ import annotations

import os

from celery import Celery

from celery_chain_router import ChainRouter
from celery_heimdall import HeimdallTask
from celery_ranch import lru_task
from celery_toolkit_testkit import log_event

router = ChainRouter(routing_key="customer")
app = Celery("forwarded", broker=os.environ["CELERY_BROKER_URL"], backend=os.environ["CELERY_RESULT_BACKEND"])
app.conf.update(task_routes=[router], chain_router_lease=3.0, heimdall_lease=3.0, ranch_lease=3.0)
RARELY = {"times": 1, "per": 8}


def note(task, number):
    log_event(what="start", number=number, worker=task.request.hostname.partition("@")[0])
    return number


@app.task(bind=True, base=HeimdallTask, heimdall=RARELY, name="limited")
def limited(self, number, customer):
    return note(self, number)


@lru_task(app, bind=True, base=HeimdallTask, heimdall=RARELY, name="limited_fair")
def limited_fair(self, number, customer):
    return note(self, number)
