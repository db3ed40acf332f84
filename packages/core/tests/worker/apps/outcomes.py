"""Tasks that end in every way a task can end, each followed into the event log."""

from __future__ import annotations

import base64
import os
import time
from typing import Any

from celery import Celery
from celery.exceptions import Ignore, Reject

from celery_toolkit_core.celery.deliveries import CONTROL, Delivery, Follower, Gate, Outcome
from celery_toolkit_core.celery.gated_task import GatedTask
from celery_toolkit_core.celery.messages import StoredMessage
from celery_toolkit_testkit import log_event

app = Celery("outcomes")
app.conf.update(
    worker_prefetch_multiplier=4,
    task_acks_late=os.environ.get("ACKS_LATE") == "1",
    broker_transport_options={"visibility_timeout": 3600},
    result_expires=60,
    broker_connection_retry_on_startup=True,
    worker_cancel_long_running_tasks_on_connection_loss=os.environ.get("CANCEL_ON_CONNECTION_LOSS") == "1",
)


class Log(Follower):
    def accepted(self, delivery: Delivery, pid: int) -> None:
        log_event(told="accepted", id=delivery.task_id)

    def ended(self, delivery: Delivery, outcome: Outcome) -> None:
        log_event(told="ended", id=delivery.task_id, outcome=outcome, runtime=delivery.runtime)

    def handed_back(self, delivery: Delivery) -> None:
        log_event(told="handed_back", id=delivery.task_id)


class Broken(Follower):
    def ended(self, delivery: Delivery, outcome: Outcome) -> None:
        raise KeyError("a follower's own fault")


class Follow(Gate):
    rank = CONTROL

    def __call__(self, delivery: Delivery, proceed: Any) -> None:
        order = delivery.message.headers.get("gate")
        if order == "bad follower":
            delivery.follow(Broken())
        delivery.follow(Log())
        if order == "park":
            # Sent again without the order, as a parked message is when it is woken.
            delivery.stored.with_headers(gate=None).publish(app, queue=delivery.queue)
            delivery.hand_back()
        elif order == "raise" and not delivery.message.delivery_info.get("redelivered"):
            raise KeyError("a gate's own fault")
        elif order == "keep" and not delivery.message.delivery_info.get("redelivered"):
            pass
        else:
            proceed()


class FollowedTask(GatedTask):
    abstract = True

    def gates(self, consumer: Any) -> list[Gate]:
        return [*super().gates(consumer), Follow()]


def task(**options: Any) -> Any:
    return app.task(bind=True, base=FollowedTask, **options)


@task()
def succeed(self: Any, seconds: float = 0.0) -> str:
    time.sleep(seconds)
    log_event(ran=self.request.id)
    return "done"


@task(rate_limit="20/s")
def limited(self: Any) -> str:
    return "done"


@task()
def fail(self: Any) -> None:
    raise ValueError("on purpose")


@task(acks_late=True, acks_on_failure_or_timeout=False)
def fail_unacknowledged(self: Any) -> None:
    raise ValueError("on purpose")


@task()
def retry(self: Any) -> str:
    if self.request.retries:
        return "done"
    raise self.retry(countdown=0)


@task()
def ignore(self: Any) -> None:
    raise Ignore


@task()
def reject(self: Any, requeue: bool) -> str:
    if self.request.delivery_info["redelivered"]:
        return "done"
    raise Reject("on purpose", requeue=requeue)


@task()
def die(self: Any) -> None:
    os._exit(3)


@task(acks_late=True, reject_on_worker_lost=True)
def die_once(self: Any) -> str:
    if not self.request.delivery_info["redelivered"]:
        os._exit(3)
    return "done"


@task(acks_late=True, retry_on_worker_lost=True, default_retry_delay=0)
def die_and_retry(self: Any) -> str:
    if not self.request.retries:
        os._exit(3)
    return "done"


@task()
def describe(self: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """What the body sees of its message."""
    request = self.request
    return {
        "args": args,
        "kwargs": kwargs,
        "id": request.id,
        "root_id": request.root_id,
        "group": request.group,
        "own": (request.headers or {}).get("own"),
        "priority": request.delivery_info["priority"],
        "correlation_id": request.correlation_id,
        "reply_to": request.reply_to,
        "retries": request.retries,
    }


@app.task
def plain(*args: Any) -> Any:
    return args


class TicketStrategy:
    """Hands on the message that a ticket carries, as ranch does with the task that it claims."""

    def __init__(self, task: Any, app: Celery, consumer: Any) -> None:
        self.consumer = consumer

    def __call__(self, message: Any, payload: Any, ack: Any, reject: Any, callbacks: Any) -> None:
        stored = StoredMessage.from_bytes(base64.b64decode(message.headers["carries"]))
        delivery = Delivery(stored.rebuild(message), None, ack, reject, callbacks, self.consumer)
        delivery.follow(Log())
        delivery.hand_over()


@app.task(Strategy=f"{__name__}:TicketStrategy")
def ticket() -> None:
    """Carries another task's message; never runs itself."""
