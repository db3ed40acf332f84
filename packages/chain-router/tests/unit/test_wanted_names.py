"""Under which name a worker joins, by how it was started."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from celery import Celery

from celery_chain_router import ChainRouter
from celery_chain_router.worker import _wanted_names, _weight, enter
from celery_toolkit_core.errors import InvalidParameter


def wanted(hostname: str, selected: list[str] | None = None, *registered: str):
    """What a worker of this node name, started with these queues (``-Q``), asks for."""
    router = ChainRouter()
    for name in registered:
        router.register_worker(name)
    queues = SimpleNamespace(_consume_from=None if selected is None else dict.fromkeys(selected))
    app = SimpleNamespace(amqp=SimpleNamespace(queues=queues))
    return _wanted_names(SimpleNamespace(hostname=hostname, app=app), router)


@pytest.fixture(autouse=True)
def no_slot(monkeypatch):
    monkeypatch.delenv("CHAIN_ROUTER_SLOT", raising=False)
    monkeypatch.delenv("CHAIN_ROUTER_WEIGHT", raising=False)


def test_a_named_worker_is_its_name_and_nothing_else():
    assert wanted("worker1@host") == (["worker1"], False)
    assert wanted("worker1@host", ["worker1", "mail"]) == (["worker1"], False)


def test_a_worker_without_a_name_takes_a_registered_one_or_a_slot():
    assert wanted("celery@host") == ([], True)
    assert wanted("celery@host", None, "b", "a") == (["b", "a"], True)


def test_a_worker_for_other_queues_stays_off():
    assert wanted("mailer@host", ["mail"]) is None
    assert wanted("celery@host", ["mail"], "worker1") is None


def test_the_environment_decides_before_all(monkeypatch):
    monkeypatch.setenv("CHAIN_ROUTER_SLOT", "shop-0")
    assert wanted("celery@host", ["mail"]) == (["shop-0"], False)
    monkeypatch.setenv("CHAIN_ROUTER_SLOT", "a{b}")
    with pytest.raises(InvalidParameter, match="worker name"):
        wanted("celery@host")


def test_a_name_that_is_no_queue_is_refused():
    with pytest.raises(InvalidParameter, match="worker name"):
        wanted("a{b}@host")


@pytest.mark.parametrize("given", ["0", "-1", "x", "nan", "101"])
def test_an_impossible_weight_of_the_environment_is_named(monkeypatch, given):
    monkeypatch.setenv("CHAIN_ROUTER_WEIGHT", given)
    with pytest.raises(InvalidParameter, match="CHAIN_ROUTER_WEIGHT"):
        _weight(SimpleNamespace())


@pytest.mark.parametrize(
    ("hostname", "consumed"),
    [("worker2@h", {"celery", "worker2"}), ("other@h", {"celery"}), ("celery@h", {"celery"})],
)
def test_without_a_redis_a_registered_worker_finds_its_queue(hostname, consumed):
    """A worker without a name must not pick up the first registered one: nobody would notice the second that does."""
    with Celery("routed", broker="memory://", set_as_current=False) as app:
        router = app.conf.task_routes = ChainRouter()
        for name in ("worker1", "worker2"):
            router.register_worker(name)
        enter(SimpleNamespace(app=app, hostname=hostname), router)
        app.amqp.queues["worker1"]  # what routing does
        assert set(app.amqp.queues.consume_from) == consumed
