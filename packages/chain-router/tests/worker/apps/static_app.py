"""Three workers registered by hand, as in the README."""

from __future__ import annotations

from celery import Celery

from celery_chain_router import ChainRouter
from celery_toolkit_testkit.events import log_event

app = Celery("static")

router = ChainRouter(routing_key="customer_id")
router.register_worker("worker1")
router.register_worker("worker2")
router.register_worker("worker3")
app.conf.task_routes = router


@app.task(bind=True)
def process_order(self, order_id, customer_id):
    log_event(kind="order", order=order_id, customer=customer_id, worker=self.request.hostname.partition("@")[0])


@app.task(bind=True, default_retry_delay=0)
def flaky(self, customer_id):
    log_event(kind="flaky", customer=customer_id, worker=self.request.hostname.partition("@")[0])
    if self.request.retries < 2:
        raise self.retry()
