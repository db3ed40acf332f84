"""Sending tasks, without a worker: what is written, what is refused before anything is written."""

from __future__ import annotations

import json
import time

import pytest
from celery import Celery
from kombu.exceptions import EncodeError

from celery_ranch import BacklogFull, Clients, PayloadTooLarge, audit, get_status, lru_task
from celery_ranch.application import ranch_of
from celery_toolkit_core.celery.messages import StoredMessage
from celery_toolkit_core.errors import InvalidParameter, RedisUnavailable
from celery_toolkit_testkit import eventually


@pytest.fixture
def task(app):
    @lru_task(app, shared=False, name="submit.task", max_backlog=3, lru_cost=lambda data=None, **kw: len(data or "x"))
    def task(data=None, tags=None, expiry=None):
        return data

    return task


def nothing_written(client):
    return client.keys("*") == []


@pytest.mark.parametrize("key", [None, "", b"bytes", "\ud800", "x" * 513, True])
def test_an_impossible_key_writes_nothing(task, redis_client, key):
    with pytest.raises(InvalidParameter, match="lru_key"):
        task.lru_delay(key, "data")
    assert nothing_written(redis_client)


@pytest.mark.parametrize(
    "options",
    [
        {"priority_weight": 0},
        {"priority_weight": "1"},
        {"expiry": -1},
        {"expiry": float("nan")},
        {"tags": {"a": set()}},
    ],
)
def test_impossible_options_write_nothing(task, redis_client, options):
    with pytest.raises(ValueError, match=r"weight|expiry|tags"):
        task.lru_delay("a", "data", **options)
    assert nothing_written(redis_client)


def test_arguments_that_cannot_be_serialised_write_nothing_and_fail_at_once(task, redis_client):
    with pytest.raises(EncodeError):
        task.lru_delay("a", {"x": object()})
    assert nothing_written(redis_client)


def test_a_wrong_call_writes_nothing(task, redis_client):
    with pytest.raises(TypeError):
        task.lru_delay("a", 1, 2, 3, 4)
    assert nothing_written(redis_client)


def test_a_huge_payload_writes_nothing(task, redis_client):
    with pytest.raises(PayloadTooLarge) as refused:
        task.lru_apply_async("a", ("x" * 1_100_000,), lru_cost=1)
    assert (refused.value.task, refused.value.limit) == ("submit.task", 1_000_000)
    assert nothing_written(redis_client)


@pytest.mark.alone
def test_without_redis_the_error_comes_in_time_and_names_the_server():
    app = Celery("away", broker="redis://:secret@127.0.0.1:1/0", set_as_current=False)

    @lru_task(app, shared=False, name="away.task")
    def task():
        pass

    begin = time.monotonic()
    with pytest.raises(RedisUnavailable, match=r"127\.0\.0\.1:1") as error:
        task.lru_delay("a")
    assert time.monotonic() - begin <= 2
    assert "secret" not in str(error.value)
    assert get_status(app)["health"].startswith("error")
    app.close()


@pytest.mark.not_on("cluster", reason="it looks into the broker, which is elsewhere there")
def test_a_submit_takes_two_round_trips(task, redis_client):
    task.lru_delay("a", "x")
    redis_client.config_resetstat()
    task.lru_delay("a", "x")
    calls = {
        name.removeprefix("cmdstat_"): stat["calls"]
        for name, stat in redis_client.info("commandstats").items()
        if name not in ("cmdstat_config|resetstat", "cmdstat_config", "cmdstat_info")  # Redis 7, 6.2
    }
    from_scripts = ("hexists", "zscore", "hget", "hset", "zadd", "hincrby", "zrem", "zrangebylex", "time")
    sent = {name: count for name, count in calls.items() if name not in from_scripts}
    assert sent.pop("evalsha") == sent.pop("lpush") == 1
    assert set(sent) <= {"subscribe", "unsubscribe"}  # of Celery's result backend, as for every task


@pytest.mark.not_on("cluster", reason="it looks into the broker, which is elsewhere there")
def test_a_task_without_a_client_is_plain_celery(task, redis_client):
    task.delay("data")
    assert [key.decode() for key in redis_client.keys("*") if b"kombu" not in key] == ["celery"]


@pytest.mark.not_on("cluster", reason="it looks into the broker, which is elsewhere there")
def test_the_stored_bytes_are_celerys_and_the_ticket_names_no_task(task, redis_client, app):
    result = task.lru_apply_async("a", ("data",), lru_cost=1, priority=3, headers={"mine": 1})
    (_, message), *_ = redis_client.hgetall(ranch_of(app).backlog.keys[1]).items()
    assert b'[["data"], {}, {"callbacks": null' in message
    ticket = json.loads(redis_client.lindex("celery", 0) or redis_client.lindex("celery\x06\x163", 0))
    assert ticket["headers"]["task"] == "celery_ranch.ticket"
    assert ticket["headers"]["id"] != result.id
    assert "submit.task" not in json.dumps(ticket)


@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_both_serializers_of_celery_ranch_store_what_celery_made(app, claim, serializer):
    """In celery-ranch 0.1.1 the JSON mode cannot work; here neither changes a byte, and nothing is pickled."""
    app.conf.ranch = {"redis_serializer": serializer}

    @lru_task(app, shared=False, name="submit.serialised")
    def task(*args):
        pass

    task.lru_delay("a", [], {}, 2**70, "ü")
    stored = StoredMessage.from_bytes(claim(app).message)
    assert (stored.content_type, json.loads(stored.body)[0]) == ("application/json", [[], {}, 2**70, "ü"])


@pytest.mark.parametrize(
    ("option", "call"),
    [({}, {"lru_cost": 3}), ({"lru_cost": 3}, {}), ({"lru_cost": lambda pages: len(pages)}, {})],
    ids=["of the call", "of the task", "by a function"],
)
def test_a_cost_makes_the_turns_of_a_client_rarer(app, claim, option, call):
    @lru_task(app, shared=False, name="submit.costly", **option)
    def costly(pages):
        pass

    for _ in range(8):
        costly.apply_async(("abc",), lru_key="heavy", **call)
        costly.apply_async(("a",), lru_key="light", lru_cost=1)
    assert [claim(app).label for _ in range(8)].count("light") == 6


def test_the_client_may_be_an_argument_or_a_function_of_them(app, claim):
    @lru_task(app, shared=False, name="submit.named", lru_key="customer")
    def named(text, customer=None):
        pass

    @lru_task(app, shared=False, name="submit.computed", lru_key=lambda order: order["org"])
    def computed(order):
        pass

    named.delay("t", customer=7)
    named.delay("t", "8")
    computed.delay({"org": "acme"})
    computed.apply_async(({"org": "acme"},), lru_key="other")
    assert [claim(app).label for _ in range(4)] == ["7", "8", "acme", "other"]
    with pytest.raises(InvalidParameter, match="lru_key"):
        named.delay("t")


def test_a_full_backlog_raises_and_says_how_full(task, app):
    for _ in range(3):
        task.lru_delay("a")
    with pytest.raises(BacklogFull) as full:
        task.lru_delay("a")
    assert (full.value.lru_key, full.value.waiting) == ("a", 3)
    Clients(app).set_max_backlog("b", 1)
    task.lru_delay("b")
    with pytest.raises(BacklogFull):
        task.lru_delay("b")
    assert audit(app)["submitted"] == 4


def test_eager_mode_runs_at_once(task, app, redis_client):
    app.conf.task_always_eager = True
    assert task.lru_delay("a", "now").get() == "now"
    assert nothing_written(redis_client)


def test_own_arguments_called_like_ours_pass_through_lru_apply_async(task, app):
    task.lru_apply_async("a", kwargs={"data": "d", "tags": "t", "expiry": 3})
    assert audit(app)["waiting"] == 1


def test_metadata_of_a_client(task):
    assert task.get_client_metadata("nobody") == {
        "lru_key": "nobody",
        "weight": 1.0,
        "last_execution": None,
        "tags": {},
        "custom_data": {},
        "pending_tasks": 0,
    }
    assert task.set_priority_weight("a", 0.5) is True
    assert task.add_tag("a", "tier", "gold") is True
    assert task.set_custom_data("a", "impact", [1, 2.5, {}]) is True
    task.lru_delay("a", tags={"region": "eu"}, priority_weight=2.0)
    seen = task.get_client_metadata("a")
    assert seen["weight"] == 2.0
    assert seen["tags"] == {"tier": "gold", "region": "eu"}
    assert seen["custom_data"] == {"impact": [1, 2.5, {}]} == task.get_custom_data("a")
    assert seen["pending_tasks"] == 1


def test_clients_are_found_by_tag_and_value(task):
    task.add_tag("a", "tier", "gold")
    task.add_tag("b", "tier", "silver")
    task.add_tag("c", "tier", "gold")
    assert task.get_tagged_clients("tier") == ["a", "b", "c"]
    assert task.get_tagged_clients("tier", "gold") == ["a", "c"]
    task.add_tag("a", "tier", "silver")
    assert task.get_tagged_clients("tier", "gold") == ["c"]
    assert task.get_tagged_clients("other") == []


def test_system_status(task, app):
    task.lru_delay("a")
    task.lru_delay("b", "xx")
    expected = {
        "initialized": True,
        "storage_type": "redis",
        "backlog_size": 2,
        "unique_lru_keys": 2,
        "health": "ok",
    }
    assert task.get_system_status() == expected == get_status(app)


@pytest.mark.not_on("cluster", reason="it looks into the broker, which is elsewhere there")
def test_purge_pause_and_resume(task, app, redis_client):
    clients = Clients(app)
    clients.pause("a")
    task.lru_delay("a")
    task.lru_delay("a")
    assert clients.show("a")["paused"]
    assert redis_client.llen("celery") == 2  # its tickets may be spent on others while it is paused
    clients.resume("a")
    assert redis_client.llen("celery") == 4
    assert clients.purge("a") == 2
    seen = audit(app)
    assert (seen["purged"], seen["waiting"], seen["missing"], seen["entries"]) == (2, 0, 0, 0)


def test_records_of_idle_clients_are_dropped_after_their_time(task, app):
    task.set_priority_weight("idle", 0.5)
    task.lru_delay("busy")

    def only_the_busy_one_is_left():
        ranch_of(app).backlog.tend(max_attempts=3, client_ttl=0.001)
        return [each["lru_key"] for each in Clients(app).all()] == ["busy"]

    eventually(only_the_busy_one_is_left)


def test_the_first_call_of_a_process_warns_of_a_misspelt_setting(app, caplog):
    """A producer is as wrong with it as a worker, and Celery takes it in silence."""
    app.conf.ranch_leese = 5

    @lru_task(app, shared=False, name="submit.misspelt")
    def task():
        pass

    task.lru_delay("a")
    task.lru_delay("b")
    assert caplog.text.count("unknown_setting setting=ranch_leese did_you_mean=ranch_lease") == 1
