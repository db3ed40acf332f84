"""What users write about fairness, checked at the edge."""

from __future__ import annotations

import pickle
from datetime import timedelta

import pytest
from celery import Celery

from celery_ranch import BacklogFull, DeadTask, PayloadTooLarge, RanchTask, lru_task
from celery_ranch.application import ranch_of
from celery_ranch.options import check_cost, check_key, check_weight, delay_options
from celery_ranch.producer import _rank
from celery_ranch.profiles import check_tags
from celery_ranch.settings import read_ranch_settings
from celery_toolkit_core.errors import InvalidParameter


@pytest.fixture
def app():
    return Celery("unit", broker="redis://localhost:1/0", set_as_current=False)


@pytest.mark.parametrize("key", [None, "", b"bytes", True, 1.5, "\ud800", "x" * 513, ["a"]])
def test_impossible_keys_are_refused_by_name(key):
    with pytest.raises(InvalidParameter, match="lru_key"):
        check_key(key)


def test_an_int_key_is_its_text():
    assert check_key(7) == "7"
    assert check_key("x" * 512) == "x" * 512


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf"), True, "1", None, 1e-9, 1e9])
def test_impossible_weights_and_costs_are_value_errors(weight):
    with pytest.raises(ValueError, match="weight"):
        check_weight("weight", weight)
    with pytest.raises(ValueError, match="cost"):
        check_cost("cost", weight)


def test_a_cost_may_be_the_running_time():
    assert check_cost("lru_cost", "runtime") == "runtime"
    assert check_cost("lru_cost", 3) == 3.0


@pytest.mark.parametrize("expiry", [0, -1, float("nan"), "soon", True])
def test_impossible_expiries_are_value_errors(expiry):
    with pytest.raises(ValueError, match="expiry"):
        delay_options(None, expiry)


def test_an_expiry_may_be_a_timedelta():
    assert delay_options(0.5, timedelta(minutes=30)) == {"lru_weight": 0.5, "expires": 1800.0}


@pytest.mark.parametrize("tags", ["text", {"": 1}, {1: "a"}, {"a": object()}])
def test_impossible_tags_are_refused(tags):
    with pytest.raises(InvalidParameter):
        check_tags(tags)


@pytest.mark.parametrize(
    ("option", "near"),
    [
        ({"lru_kye": "a"}, "lru_key"),
        ({"lru_key": "customer"}, "customer_id"),
        ({"lru_cost": 0}, "lru_cost"),
        ({"max_backlog": 0}, "max_backlog"),
        ({"weight_function": 3}, "weight_function"),
    ],
)
def test_impossible_task_options_are_refused_at_decoration(app, option, near):
    with pytest.raises(InvalidParameter, match=near):

        @lru_task(app, shared=False, lazy=False, **option)
        def task(customer_id):
            pass


def test_another_base_is_kept(app):
    class Other(RanchTask):
        abstract = True

    class Foreign(app.Task):
        abstract = True

    @lru_task(app, shared=False, lazy=False, base=Other, name="one")
    def one():
        pass

    @lru_task(app, shared=False, lazy=False, base=Foreign, name="two")
    def two():
        pass

    assert isinstance(one, Other)
    assert isinstance(two, RanchTask)
    assert isinstance(two, Foreign)


def test_settings_come_from_the_argument_then_the_prefix_then_the_dictionary(app):
    app.conf.ranch = {"lease": 10, "max_attempts": 4, "redis_prefix": "ranch:", "redis_serializer": "pickle"}
    app.conf.ranch_max_attempts = 5
    app.conf.ranch_max_payload = 1000
    read = read_ranch_settings(app, {"max_payload": 2000})
    assert (read.lease, read.max_attempts, read.max_payload, read.redis_prefix) == (10.0, 5, 2000, "ranch:")


def test_the_dictionary_of_celery_ranch_is_understood(app):
    """Every key of 0.1 with a value that differs from our default."""
    app.conf.ranch = {
        "redis_prefix": "theirs:",
        "redis_serializer": "pickle",
        "redis_max_retries": 3,
        "redis_key_ttl": 3600,
        "redis_use_ssl": True,
        "redis_socket_timeout": 5,
        "redis_socket_connect_timeout": 3,
        "metrics_enabled": False,
    }
    client = ranch_of(app).backlog.client
    options = client.connection_pool.connection_kwargs
    assert (options["socket_timeout"], options["socket_connect_timeout"]) == (5.0, 3.0)
    assert "SSL" in client.connection_pool.connection_class.__name__
    assert ranch_of(app).backlog.keys[0].startswith("{theirs:main}")


@pytest.mark.parametrize(
    ("dictionary", "message"),
    [({"redis_prefx": "a"}, "redis_prefix"), ({"lease": 0}, "lease"), ({"metrics_enabled": 1}, "metrics_enabled")],
)
def test_impossible_settings_are_refused_by_name(app, dictionary, message):
    app.conf.ranch = dictionary
    with pytest.raises(InvalidParameter, match=message):
        read_ranch_settings(app, {})


def test_two_tasks_cannot_configure_one_application_differently(app):
    lru_task(app, config={"lease": 10})
    lru_task(app, config={"lease": 10, "max_attempts": 2})
    with pytest.raises(InvalidParameter, match="another task"):
        lru_task(app, config={"lease": 11})
    assert ranch_of(app).settings.lease == 10.0


def test_the_place_inside_a_client_follows_the_broker_at_hand():
    """With Redis 0 goes first, with RabbitMQ the highest number."""
    assert sorted([9, 0, 3], key=lambda priority: _rank(priority, "redis")) == [0, 3, 9]
    assert sorted([9, 0, 3], key=lambda priority: _rank(priority, "amqp")) == [9, 3, 0]
    assert _rank(None, "redis") == 0


@pytest.mark.parametrize(
    "error",
    [
        PayloadTooLarge("m", task="t", size=2, limit=1),
        BacklogFull("m", lru_key="a", waiting=1),
        DeadTask("m", task_id="i", attempts=3),
    ],
)
def test_errors_pickle_with_their_data(error):
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def test_the_decorator_without_an_application_is_refused():
    with pytest.raises(InvalidParameter, match=r"@lru_task\(app\)"):

        @lru_task
        def resize(image): ...
