from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from types import ModuleType
from typing import Any

import pytest
from celery import Task, chain, chord, group

from celery_toolkit_core.celery.messages import StoredMessage
from celery_toolkit_testkit import EventLog, WorkerProcess, eventually

Start = Callable[..., WorkerProcess]


@pytest.fixture
def tasks(celery_app_module: Callable[[str], ModuleType]) -> Any:
    return celery_app_module("outcomes")


def outcomes(event_log: EventLog, task_id: str) -> list[str]:
    return [event["outcome"] for event in event_log.events(told="ended", id=task_id)]


def control(tasks: Any, command: str, *args: Any, **options: Any) -> None:
    """A remote command that has reached the worker when this returns.

    It may be repeated: with green pools a worker says that it is ready before it listens to commands.
    """
    send = getattr(tasks.app.control, command)
    eventually(lambda: send(*args, reply=True, timeout=5, limit=1, **options), 60)


def send_for(tasks: Any, stored: StoredMessage, **options: Any) -> None:
    """Publish a ticket that carries this message."""
    tasks.ticket.apply_async(headers={"carries": base64.b64encode(stored.to_bytes()).decode()}, **options)


def message_of(tasks: Any, task: Any, *args: Any, **options: Any) -> StoredMessage:
    """The message that a call would send."""
    message = tasks.app.amqp.as_task_v2(options.pop("task_id"), task.name, args, {}, **options)
    with tasks.app.producer_or_acquire() as producer:
        return StoredMessage.build(
            producer,
            message.body,
            exchange="",
            routing_key="celery",
            serializer="json",
            headers=message.headers,
            **message.properties,
        )


@pytest.mark.parametrize("acks_late", [False, True], ids=["early", "late"])
def test_every_end_is_told_once_in_prefork(
    tasks: Any, celery_worker_process: Start, event_log: EventLog, acks_late: bool
) -> None:
    env = {"ACKS_LATE": "1"} if acks_late else {}
    celery_worker_process("outcomes", concurrency=2, env=env)
    past = datetime.now(timezone.utc) - timedelta(seconds=10)
    control(tasks, "revoke", "revoked")
    expected: dict[str, list[str]] = {}

    def send(task: Any, *args: Any, ends: list[str], name: str = "", **options: Any) -> None:
        task_id = name or task.name
        expected[task_id] = ends
        task.apply_async(args, task_id=task_id, **options)

    send(tasks.succeed, ends=["success"])
    send(tasks.fail, ends=["failure"])
    send(tasks.fail_unacknowledged, ends=["failure"])
    send(tasks.retry, ends=["retry", "success"])
    send(tasks.ignore, ends=["ignored"])
    send(tasks.reject, False, ends=["rejected"], name="reject")
    # After an early acknowledgement there is nothing left to give back.
    send(tasks.reject, True, ends=["requeued", "success"] if acks_late else ["rejected"], name="requeue")
    send(tasks.succeed, ends=["revoked"], name="revoked")
    send(tasks.succeed, ends=["expired"], name="expired", expires=past)
    send(tasks.succeed, 600, ends=["timeout"], name="timeout", time_limit=1)
    send(tasks.die, ends=["lost"])
    send(tasks.die_once, ends=["requeued", "success"])
    if hasattr(Task, "retry_on_worker_lost"):
        send(tasks.die_and_retry, ends=["retry", "success"])
    send(tasks.succeed, ends=["success"], name="later", countdown=1)
    send(tasks.limited, ends=["success"])
    send(tasks.succeed, ends=["requeued", "success"], name="gate raises", headers={"gate": "raise"})
    send(tasks.succeed, ends=["requeued", "success"], name="gate keeps", headers={"gate": "keep"})
    send(tasks.succeed, ends=["success"], name="park", headers={"gate": "park"})
    send(tasks.succeed, ends=["success"], name="bad follower", headers={"gate": "bad follower"})
    expected["carried"] = ["success", "success"]  # the gate's follower and the ticket's
    send_for(tasks, message_of(tasks, tasks.succeed, task_id="carried"))
    expected["carried plain"] = ["success"]
    send_for(tasks, message_of(tasks, tasks.plain, 1, task_id="carried plain"))
    expected["carried expired"] = ["expired", "expired"]
    send_for(tasks, message_of(tasks, tasks.succeed, task_id="carried expired", expires=past))
    expected["carried unknown"] = ["unknown"]
    send_for(tasks, message_of(tasks, tasks.succeed, task_id="carried unknown").with_headers(task="nobody.knows"))
    send(tasks.succeed, 600, ends=["terminated"], name="terminated")
    event_log.wait_for(1, told="accepted", id="terminated")
    control(tasks, "revoke", "terminated", terminate=True)

    def as_expected() -> bool:
        wrong = {task_id: told for task_id in expected if (told := outcomes(event_log, task_id)) != expected[task_id]}
        assert not wrong
        return True

    eventually(as_expected, 90)


@pytest.mark.parametrize("pool", ["threads", "solo", "gevent"])
def test_every_end_that_the_pool_knows_is_told_once(
    tasks: Any, celery_worker_process: Start, event_log: EventLog, pool: str
) -> None:
    celery_worker_process("outcomes", pool=pool)
    control(tasks, "revoke", "revoked")
    expected = {
        "success": ["success"],
        "failure": ["failure"],
        "retry": ["retry", "success"],
        "ignore": ["ignored"],
        "reject": ["rejected"],
        "revoked": ["revoked"],
        "later": ["success"],
        "limited": ["success"],
        "carried": ["success", "success"],
    }
    tasks.succeed.apply_async(task_id="success")
    tasks.fail.apply_async(task_id="failure")
    tasks.retry.apply_async(task_id="retry")
    tasks.ignore.apply_async(task_id="ignore")
    tasks.reject.apply_async((False,), task_id="reject")
    tasks.succeed.apply_async(task_id="revoked")
    tasks.succeed.apply_async(task_id="later", countdown=1)
    tasks.limited.apply_async(task_id="limited")
    send_for(tasks, message_of(tasks, tasks.succeed, task_id="carried"))

    def as_expected() -> bool:
        wrong = {task_id: told for task_id in expected if (told := outcomes(event_log, task_id)) != expected[task_id]}
        assert not wrong
        return True

    eventually(as_expected, 60)


def test_the_start_of_a_body_and_its_runtime_are_told(
    tasks: Any, celery_worker_process: Start, event_log: EventLog
) -> None:
    celery_worker_process("outcomes")
    tasks.succeed.apply_async((0.3,), task_id="timed")
    (ended,) = event_log.wait_for(1, told="ended", id="timed")
    (accepted,) = event_log.events(told="accepted", id="timed")
    assert accepted["at"] <= ended["at"]
    assert 0.3 <= ended["runtime"] < 30
    (ran,) = event_log.events(ran="timed")
    assert ran["pid"] != ended["pid"] == accepted["pid"]  # followers live in the main process


@pytest.mark.parametrize("how", ["park", "carry"])
def test_a_message_that_was_kept_keeps_everything(
    tasks: Any, celery_worker_process: Start, event_log: EventLog, how: str
) -> None:
    """Parked by a gate and published again, or rebuilt on a ticket: the body sees what it would have seen."""
    celery_worker_process("outcomes")
    options: dict[str, Any] = {"priority": 3, "compression": "gzip", "task_id": "kept", "root_id": "root"}
    headers = {"own": {"empty": [], "big": 2**60, "text": "\u00fc"}}
    arguments = ([], {"nested": {"list": [1, 2.5, None]}})
    if how == "park":
        tasks.describe.apply_async(arguments, {"word": "x"}, headers={**headers, "gate": "park"}, **options)
    else:
        with tasks.app.producer_or_acquire() as producer:
            keeper = StoredProducer(producer)
            tasks.describe.apply_async(arguments, {"word": "x"}, headers=headers, producer=keeper, **options)
        (stored,) = keeper.kept
        send_for(tasks, stored)
    seen = tasks.app.AsyncResult("kept").get(timeout=60)
    assert seen == {
        "args": [[], {"nested": {"list": [1, 2.5, None]}}],
        "kwargs": {"word": "x"},
        "id": "kept",
        "root_id": "root",
        "group": None,
        "own": headers["own"],
        "priority": 3,
        "correlation_id": "kept",
        "reply_to": tasks.app.thread_oid,
        "retries": 0,
    }
    if how == "park":
        assert len(event_log.events(told="handed_back", id="kept")) == 1


class StoredProducer:
    """Stands in the place of a producer, as ranch's does, and keeps what would be published."""

    def __init__(self, producer: Any) -> None:
        self.producer = producer
        self.kept: list[StoredMessage] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.producer, name)

    def publish(self, body: Any, **options: Any) -> None:
        self.kept.append(StoredMessage.build(self.producer, body, **options))


def test_links_chains_and_chords_survive_parking(tasks: Any, celery_worker_process: Start) -> None:
    celery_worker_process("outcomes")
    parked = tasks.succeed.si().set(headers={"gate": "park"})
    assert chain(parked, tasks.plain.s(1)).apply_async().get(timeout=60) == ["done", 1]
    assert chord(group(parked, parked, tasks.succeed.si()), tasks.plain.s()).apply_async().get(timeout=60) == [
        ["done"] * 3
    ]
    linked = tasks.plain.s("linked").set(task_id="linked")
    parked.clone().apply_async(link=linked)
    assert tasks.app.AsyncResult("linked").get(timeout=60) == ["done", "linked"]


@pytest.mark.rabbitmq
def test_a_message_that_was_kept_keeps_everything_on_rabbitmq(
    rabbitmq_url: str,
    celery_app_module: Callable[[str], ModuleType],
    celery_worker_process: Start,
    event_log: EventLog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", rabbitmq_url)
    tasks: Any = celery_app_module("outcomes")
    celery_worker_process("outcomes")
    when = datetime(2026, 1, 2, 3, 4, 5)  # AMQP has a type for it, as for bytes and big numbers
    headers = {"own": {"when": when, "big": 2**60, "none": None, "list": [1, "\u00fc"]}, "gate": "park"}
    tasks.describe.apply_async(([],), headers=headers, priority=3, task_id="kept", compression="gzip", expires=600)
    seen = tasks.app.AsyncResult("kept").get(timeout=60)
    assert (seen["args"], seen["id"], seen["correlation_id"], seen["priority"]) == ([[]], "kept", "kept", 3)
    assert seen["own"] == {"when": when, "big": 2**60, "none": None, "list": [1, "\u00fc"]}
    eventually(lambda: outcomes(event_log, "kept") == ["success"])
    send_for(tasks, message_of(tasks, tasks.succeed, task_id="carried"))
    eventually(lambda: outcomes(event_log, "carried") == ["success", "success"], 60)
    tasks.succeed.apply_async(task_id="gate raises", headers={"gate": "raise"})
    eventually(lambda: outcomes(event_log, "gate raises") == ["requeued", "success"], 60)


def test_what_a_broken_connection_dropped_is_told_as_requeued(
    tasks: Any, cut_connections: Any, celery_worker_process: Start, event_log: EventLog
) -> None:
    worker = celery_worker_process("outcomes", concurrency=1)
    tasks.succeed.apply_async((8,), task_id="runs")
    event_log.wait_for(1, told="accepted", id="runs")
    tasks.succeed.apply_async(task_id="waits for a place")
    tasks.succeed.apply_async(task_id="waits for its time", countdown=3600)
    worker.wait_for_log("received", count=3)
    cut_connections()
    event_log.wait_for(2, told="ended", outcome="requeued")
    assert {event["id"] for event in event_log.events(outcome="requeued")} == {
        "waits for a place",
        "waits for its time",
    }
    assert outcomes(event_log, "runs") == []
    eventually(lambda: outcomes(event_log, "runs") == ["success"], 60)


def test_a_body_cancelled_for_a_broken_connection_is_told_as_requeued(
    tasks: Any, cut_connections: Any, celery_worker_process: Start, event_log: EventLog
) -> None:
    worker = celery_worker_process("outcomes", env={"ACKS_LATE": "1", "CANCEL_ON_CONNECTION_LOSS": "1"})
    tasks.succeed.apply_async((600,), task_id="cancelled")
    event_log.wait_for(1, told="accepted", id="cancelled")
    cut_connections()
    worker.wait_for_log("Connection to broker lost")
    eventually(lambda: outcomes(event_log, "cancelled") == ["requeued"], 60)
