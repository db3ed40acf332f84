"""The example's application: ``celery -A celery_chain_router.examples.tasks worker -n worker1@%h -Q worker1``.

The broker is ``CELERY_BROKER_URL``, else ``REDIS_URL``, else the Redis on the default port.
"""

from __future__ import annotations

import os

from celery import Celery, current_task

from celery_chain_router import ChainRouter

WORKERS = ("worker1", "worker2", "worker3")

_redis = os.environ.get("REDIS_URL") or "redis://localhost:6379/0"

app = Celery(
    "celery_chain_router.examples",
    broker=os.environ.get("CELERY_BROKER_URL") or _redis,
    backend=os.environ.get("CELERY_RESULT_BACKEND") or os.environ.get("CELERY_BROKER_URL") or _redis,
)

router = ChainRouter(routing_key="customer_id")
for name in WORKERS:
    router.register_worker(name)

app.conf.task_routes = router
app.conf.broker_connection_retry_on_startup = True
app.conf.result_expires = 600


@app.task
def process_order(order_id: str, customer_id: str) -> str:
    """Pretend to work on an order; returns the name of the worker that did."""
    return _worker()


@app.task
def send_notification(customer_id: str, message: str) -> str:
    """Pretend to write to a customer; returns the name of the worker that did."""
    return _worker()


def _worker() -> str:
    return str(current_task.request.hostname).partition("@")[0]
