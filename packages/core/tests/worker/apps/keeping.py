"""Tasks that hold a lease while they run, renewed by the worker's keeper."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from typing import Any

from celery import Celery

from celery_toolkit_core import parameters
from celery_toolkit_core.celery.deliveries import CONTROL, Delivery, Follower, Gate, Outcome, open_deliveries
from celery_toolkit_core.celery.gated_task import GatedTask
from celery_toolkit_core.celery.worker import WorkerStep, install
from celery_toolkit_core.connection import connect
from celery_toolkit_core.keys import KeySpace
from celery_toolkit_core.leases import Leases
from celery_toolkit_core.settings import setting
from celery_toolkit_testkit import log_event

TTL = 2.0

app = Celery("keeping", backend="disabled://")
app.conf.update(
    broker_connection_retry_on_startup=True,
    keeping_leese=3,
    task_acks_late=os.environ.get("ACKS_LATE") == "1",
    worker_enable_soft_shutdown_on_idle=False,
)


@dataclass(frozen=True)
class Settings:
    lease: float = setting(TTL, parameters.seconds)


def leases(url: str | None = None) -> Leases:
    client = connect(url or os.environ["CELERY_BROKER_URL"])
    return Leases(client, KeySpace("keeping"), ttl=TTL)


class Step(WorkerStep):
    prefix = "keeping"
    settings = Settings
    replaces = ("celery-toolkit-keeping", "celery-keeping-of-old")

    def prepare(self, consumer: Any) -> None:
        self.leases = leases()
        self.keeper.every(TTL / 4, self.renew)
        log_event(step="prepared")

    def renew(self) -> None:
        held = [(delivery.task_id, delivery.task_id) for delivery in open_deliveries()]
        for (name, _), kept in zip(held, self.leases.renew_many(held), strict=True):
            if not kept:
                log_event(lost=name)

    def start(self, consumer: Any) -> None:
        super().start(consumer)
        keepers = [thread for thread in threading.enumerate() if thread.name == self.keeper.name]
        log_event(step="started", threads=len(keepers))

    def finish(self, consumer: Any) -> None:
        log_event(step="finished")


class Hold(Follower):
    def __init__(self, step: Step) -> None:
        self.step = step

    def ended(self, delivery: Delivery, outcome: Outcome) -> None:
        # In this order: who sees the lease gone sees the end in the log.
        log_event(ended=delivery.task_id, outcome=outcome)
        self.step.leases.release(delivery.task_id, delivery.task_id)


class Acquire(Gate):
    rank = CONTROL

    def __init__(self, step: Step) -> None:
        self.step = step

    def __call__(self, delivery: Delivery, proceed: Any) -> None:
        assert self.step.leases.acquire(delivery.task_id, delivery.task_id)
        delivery.follow(Hold(self.step))
        proceed()


class LeasedTask(GatedTask):
    abstract = True

    @classmethod
    def on_bound(cls, app: Celery) -> None:
        super().on_bound(app)
        install(app, Step)

    def gates(self, consumer: Any) -> list[Gate]:
        step = Step.of(consumer)
        assert step is not None
        return [*super().gates(consumer), Acquire(step)]


@app.task(bind=True, base=LeasedTask)
def work(self: Any, seconds: float) -> str:
    log_event(began=self.request.id)
    time.sleep(seconds)
    return "done"
