"""The tasks of the shop."""

from __future__ import annotations

import time
from pathlib import Path

from celery import shared_task

from celery_showcase_presets import HeavyTask, LightTask


@shared_task(base=HeavyTask)
def invoice(order: int, *, seconds: float = 1.0) -> str:
    """Make the invoice of an order, which takes a while."""
    time.sleep(seconds)
    return f"invoice of order {order}"


@shared_task(base=LightTask)
def mail(what: str, to: str) -> str:
    """Send a mail; the tail of a chain."""
    return f"{to} has got the {what}"


@shared_task(base=HeavyTask, max_retries=0)
def import_prices(path: str) -> int:
    """Read a price list. A file that is not there is a dead letter; put it there, and send the letter again."""
    return len(Path(path).read_text(encoding="utf-8").splitlines())


@shared_task(base=LightTask)
def count_orders() -> int:
    """What beat asks for."""
    return int(time.time()) % 1000
