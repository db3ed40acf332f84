"""Workers that share out partitions; a short lease."""

from __future__ import annotations

import os
import time

from celery import Celery

from celery_chain_router import ChainRouter
from celery_toolkit_testkit.events import log_event


def name(task) -> str:
    return task.request.hostname.partition("@")[0]


app = Celery("partitions")
app.conf.update(
    task_acks_late=True,
    # Celery fails a task whose result it cannot store: that is not what is tried here.
    task_ignore_result=True,
    worker_prefetch_multiplier=4,
    chain_router_lease=float(os.environ.get("LEASE", "3")),
    chain_router_grace=float(os.environ.get("GRACE", "0")),
    broker_transport_options={"visibility_timeout": 3600},
    worker_cancel_long_running_tasks_on_connection_loss=False,
)
router = app.conf.task_routes = ChainRouter(
    mode="partition",
    routing_key="key",
    partitions=int(os.environ.get("PARTITIONS", "16")),
    on_assign=lambda number: log_event(kind="assign", partition=number),
    on_revoke=lambda number: log_event(kind="revoke", partition=number),
)


@app.task(bind=True)
def work(self, number, key, seconds=0.0):
    fence = self.request.chain_router_fence
    log_event(kind="start", number=number, key=key, worker=name(self), fence=fence)
    time.sleep(seconds)
    log_event(kind="done", number=number, key=key, worker=name(self), fence=fence)


@app.task(bind=True, max_retries=None)
def try_again(self, key, path):
    log_event(kind="try", key=key, worker=name(self))
    if not os.path.exists(path):  # noqa: PTH110  # a task, not a test
        raise self.retry(countdown=0.3)
