from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from types import ModuleType
from typing import Any

import pytest
from celery import Task

from celery_toolkit_core.celery.messages import StoredMessage
from celery_toolkit_testkit import EventLog, WorkerProcess, eventually

Start = Callable[..., WorkerProcess]


@pytest.fixture
def tasks(celery_app_module: Callable[[str], ModuleType]) -> Any:
    return celery_app_module("outcomes")


def outcomes(event_log: EventLog, task_id: str) -> list[str]:
    return [event["outcome"] for event in event_log.events(told="ended", id=task_id)]


def control(tasks: Any, command: str, *args: Any, **options: Any) -> None:
    """A remote command that has reached the worker when this returns."""
    assert getattr(tasks.app.control, command)(*args, reply=True, timeout=30, limit=1, **options)


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
