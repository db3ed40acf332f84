"""The tasks of the tour. Their bodies sleep; what happens to them is real."""

from __future__ import annotations

import time
from typing import Any

from celery import shared_task

from celery_heimdall import HeimdallTask
from celery_ranch import RanchTask
from celery_showcase_presets import HeavyTask, LightTask

from .trace import recorded


class UniqueHeavyTask(HeavyTask, HeimdallTask):
    """Heavy, and unique or limited."""

    abstract = True


class FairHeavyTask(HeavyTask, RanchTask):
    """Heavy, and fair between clients."""

    abstract = True


class FullTask(HeavyTask, HeimdallTask, RanchTask):
    """Heavy, unique, limited and fair; routed by its name."""

    abstract = True


@shared_task(base=LightTask, bind=True, name="light.greet")
def greet(self: Any, client: str) -> str:
    """Say hello."""
    with recorded(self, client):
        return f"hello {client}"


@shared_task(base=HeavyTask, bind=True, name="heavy.render")
def render(self: Any, client: str, seconds: float = 0.2) -> str:
    """Keep a process busy."""
    with recorded(self, client):
        time.sleep(seconds)
        return f"film of {client}"


@shared_task(base=LightTask, bind=True, name="light.notify")
def notify(self: Any, what: str, client: str) -> str:
    """Tell a client that something is ready; the tail of chains."""
    with recorded(self, client):
        return f"{what} is ready"


@shared_task(base=UniqueHeavyTask, bind=True, name="heavy.report", heimdall={"unique": True})
def report(self: Any, client: str, seconds: float = 1.0) -> str:
    """Run once, however often it was asked for."""
    with recorded(self, client):
        time.sleep(seconds)
        return f"report for {client}"


#: Of `call_api`: never more starts than this in any second, over all workers.
CALLS_PER_SECOND = 5


@shared_task(base=UniqueHeavyTask, bind=True, name="heavy.call_api", heimdall={"times": CALLS_PER_SECOND, "per": 1})
def call_api(self: Any, client: str) -> str:
    """Call somebody who allows so many calls a second."""
    with recorded(self, client):
        time.sleep(0.05)
        return client


@shared_task(base=HeavyTask, bind=True, name="heavy.export")
def export(self: Any, client: str, seconds: float) -> str:
    """Wait in line with everybody else."""
    with recorded(self, client):
        time.sleep(seconds)
        return client


@shared_task(base=FairHeavyTask, bind=True, name="heavy.fair_export")
def fair_export(self: Any, client: str, seconds: float) -> str:
    """Wait in its client's own line."""
    with recorded(self, client):
        time.sleep(seconds)
        return client


@shared_task(base=HeavyTask, bind=True, name="ring.order")
def order(self: Any, number: int, customer: str) -> str:
    """Run where its customer's other orders ran."""
    with recorded(self, customer):
        time.sleep(0.05)
        return str(self.request.hostname)


#: Of `invoice`: never more starts than this in any second, over all workers.
INVOICES_PER_SECOND = 5


@shared_task(
    base=FullTask, bind=True, name="ring.invoice", heimdall={"unique": True, "times": INVOICES_PER_SECOND, "per": 1}
)
def invoice(self: Any, number: int, customer: str) -> str:
    """Carry all four pieces at once."""
    with recorded(self, customer):
        time.sleep(0.1)
        return f"invoice {number} of {customer}"
