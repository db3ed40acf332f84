"""Every example of the README of celery-chain-router, word for word; what it leaves undefined is given as a stub."""

from __future__ import annotations

import pytest
from celery import Celery

QUICK_START = """
from celery import Celery
from celery_chain_router import ChainRouter

app = Celery('myapp', broker='redis://localhost:6379/0')

# Route tasks by customer_id kwarg
router = ChainRouter(routing_key='customer_id')

# Register your workers
router.register_worker("worker1")
router.register_worker("worker2")
router.register_worker("worker3")

# Use the router
app.conf.task_routes = router

@app.task
def process_order(order_id, customer_id):
    # All tasks with same customer_id go to same worker
    pass

@app.task
def send_notification(customer_id, message):
    # Also routed by customer_id
    pass
"""

LOCALITY = """
# With Chain Router: same customer -> same worker
process_order.delay(order_id="o1", customer_id="c123")  # -> worker1
process_order.delay(order_id="o2", customer_id="c123")  # -> worker1
send_receipt.delay(customer_id="c123")                   # -> worker1
"""

BY_KEYWORD = """
router = ChainRouter(routing_key='customer_id')

# These go to the same worker:
task.delay(data="x", customer_id="c123")
task.delay(data="y", customer_id="c123")
"""

BY_FUNCTION = """
def extract_key(task_name, args, kwargs):
    if task_name.startswith('customer.'):
        return kwargs.get('customer_id')
    elif task_name.startswith('order.'):
        return kwargs.get('order_id')
    return None  # Fall back to default routing

router = ChainRouter(routing_key_extractor=extract_key)
"""

ALL_PARAMETERS = """
router = ChainRouter(
    routing_key='customer_id',           # Kwarg name to route by
    routing_key_extractor=my_function,   # Custom extraction function
    virtual_nodes=150,                   # Virtual nodes per worker (default: 150)
    persistent_file='~/.workers.json',   # File to persist worker positions
    reset_persistent=False,              # Reset persisted state on init
)
"""

SCALING = """
# Start with 2 workers
router.register_worker("worker1")
router.register_worker("worker2")

# Add a third worker
router.register_worker("worker3")
# Only ~33% of keys are redistributed (ideal is 1/3)

# Remove a worker
router.unregister_worker("worker2")
# Only worker2's keys are redistributed
"""

UTILITIES = """
from celery_chain_router.utils import (
    simulate_task_distribution,
    analyze_routing_consistency,
    analyze_worker_scaling,
    get_key_distribution,
)

# Check distribution balance
stats = simulate_task_distribution(router, num_tasks=1000)
print(stats['worker_counts'])

# Verify routing is consistent
result = analyze_routing_consistency(router, routing_keys=['a', 'b', 'c'])
print(result['is_consistent'])  # True
"""


class Sent:
    """Stands for a broker: remembers to which queue a call was sent."""

    def __init__(self, app: Celery, name: str) -> None:
        self.app, self.name, self.queues = app, name, []
        self.task = app.tasks.get(name)

    def delay(self, *args, **kwargs):
        self.queues.append(self.app.amqp.Router().route({}, self.name, args, kwargs, self.task)["queue"].name)


@pytest.fixture
def names(tmp_path, monkeypatch):
    """What the quick start defines; its application asks no server that may run here for its members."""
    monkeypatch.setenv("HOME", str(tmp_path))
    names: dict = {"__name__": "myapp"}
    exec(QUICK_START, names)
    names["app"].conf.chain_router_discovery = False
    yield names
    names["app"].close()


def test_calls_of_one_customer_go_to_one_worker(names):
    app = names["app"]
    calls = {name: Sent(app, name) for name in ("process_order", "send_receipt")}
    calls["process_order"] = Sent(app, names["process_order"].name)
    names.update(calls)
    exec(LOCALITY, names)
    queues = [queue for call in calls.values() for queue in call.queues]
    assert queues == [names["router"].get_worker_for_key("c123")] * 3


def test_routing_by_keyword(names):
    app = names["app"]
    names["task"] = call = Sent(app, "task")
    exec(BY_KEYWORD, names)
    assert call.queues == [names["process_order"].app.conf.task_routes.get_worker_for_key("c123")] * 2
    assert names["router"].routing_key == "customer_id"


def test_routing_by_function(names):
    exec(BY_FUNCTION, names)
    router = names["router"]
    exec(SCALING, names)
    for name, kwargs, key in (
        ("customer.call", {"customer_id": "c9", "order_id": "o1"}, "c9"),
        ("order.ship", {"customer_id": "c9", "order_id": "o1"}, "o1"),
        ("other", {"customer_id": "c9"}, "other"),
    ):
        assert router.route_task(name, (), kwargs) == {"queue": router.get_worker_for_key(key)}


def test_all_parameters(names, tmp_path):
    names["my_function"] = lambda task_name, args, kwargs: None
    exec(ALL_PARAMETERS, names)
    router = names["router"]
    router.register_worker("worker1")
    assert len(router.worker_positions["worker1"]) == router.virtual_nodes == 150
    assert router.persistent_file == str(tmp_path / ".workers.json")
    assert (tmp_path / ".workers.json").is_file()
    assert router.routing_key_extractor is names["my_function"]


def test_scaling(names):
    exec("router = ChainRouter()", names)
    exec(SCALING, names)
    assert set(names["router"].worker_positions) == {"worker1", "worker3"}


def test_utilities(names, capsys):
    exec(UTILITIES, names)
    assert capsys.readouterr().out.splitlines()[-1] == "True"
    assert sum(names["stats"]["worker_counts"].values()) == 1000
