"""Workers registered by hand, each with ``-Q``: the seed's way."""

from __future__ import annotations

import os
import subprocess
import sys

CUSTOMERS = [f"c{index}" for index in range(12)]


def test_every_key_stays_on_its_worker(celery_app_module, celery_worker_process, event_log):
    static_app = celery_app_module("static_app")
    names = ["worker1", "worker2", "worker3"]
    for worker in [
        celery_worker_process("static_app", name=name, queues=[name], pool="threads", wait=False) for name in names
    ]:
        worker.wait_ready()
    for customer in CUSTOMERS:
        static_app.process_order.delay("o1", customer)
        static_app.process_order.delay(order_id="o2", customer_id=customer)
        static_app.app.send_task(static_app.process_order.name, ("o3",), {"customer_id": customer})
        static_app.flaky.delay(customer)
    orders = event_log.wait_for(3 * len(CUSTOMERS), kind="order")
    retries = event_log.wait_for(3 * len(CUSTOMERS), kind="flaky")
    owners = {customer: static_app.router.get_worker_for_key(customer) for customer in CUSTOMERS}
    assert all(event["worker"] == owners[event["customer"]] for event in orders + retries)
    assert set(owners.values()) == set(names)


def test_the_packaged_example_runs_and_brings_its_own_workers(redis_url):
    command = [sys.executable, "-m", "celery_chain_router.examples.simple_example"]
    environment = {**os.environ, "REDIS_URL": redis_url, "C_FORCE_ROOT": "1"}
    for variable in ("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"):
        environment.pop(variable, None)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Every customer stayed on one worker." in done.stdout
