"""The application that the chaos run torments: its tasks note what they did in a file outside Redis.

Every task carries all the pieces: it is of a preset, fair between clients, routed by its key, and unique or limited as
its options say.
"""

from __future__ import annotations

import os
import time
from typing import Any

from celery import Celery
from plants import plant

from celery_chain_router import ChainRouter
from celery_heimdall import HeimdallTask, current_fence
from celery_ranch import RanchTask
from celery_showcase_presets import HeavyTask, LightTask, apply_presets
from celery_toolkit_testkit import log_event

LEASE = 3.0
LIMIT_TIMES, LIMIT_PER = 5, 2.0
#: Seconds of the longest body: it lives by the renewal of its leases alone.
LONG = 2 * LEASE

plant(os.environ.get("CHAOS_FAULT", ""), LEASE)
router = ChainRouter(routing_key="key")
app = Celery("chaos", broker=os.environ["CHAOS_BROKER"], backend=os.environ["CHAOS_BACKEND"])
apply_presets(
    app,
    pool="light",
    worker_prefetch_multiplier=1,
    # A cut connection is no reason to give up what runs: ranch's lease says who goes on.
    worker_cancel_long_running_tasks_on_connection_loss=False,
    result_expires=600,
    task_routes=[router],
    toolkit_redis_url=os.environ["CHAOS_STATE"],
    chain_router_lease=LEASE,
    ranch_lease=LEASE,
    # The killer takes whom it meets: no task shall die of bad luck.
    ranch_max_attempts=50,
    heimdall_lease=LEASE,
    heimdall_sweep=1.0,
    heimdall_wake_timeout=5.0,
)


class Light(RanchTask, HeimdallTask, LightTask):
    """All the pieces on the light preset."""

    abstract = True
    max_kills = 50
    retry_backoff_max = 1


class Heavy(HeavyTask, HeimdallTask, RanchTask):
    """The same on the heavy preset, the bases in another order."""

    abstract = True
    max_kills = 50
    retry_backoff_max = 1


def work(task: Any, key: str, number: int, seconds: float = 0.02) -> None:
    """Note the start, be busy for a moment, note the end."""
    what = {"kind": task.name, "key": key, "number": number, "id": task.request.id}
    log_event(what="start", fence=current_fence(), **what)
    time.sleep(seconds)
    log_event(what="end", **what)


@app.task(base=Light, bind=True, name="fair")
def fair(self: Light, key: str, number: int, seconds: float = 0.02) -> None:
    """One of a client's many tasks."""
    work(self, key, number, seconds)


@app.task(base=Light, bind=True, name="stumbling")
def stumbling(self: Light, key: str, number: int) -> None:
    """Fails once; the preset tries it again."""
    work(self, key, number)
    if self.request.retries < 1:
        raise ConnectionError(key)


@app.task(base=Light, bind=True, name="single", heimdall={"unique": True, "key": lambda args, kwargs: f"one-{args[0]}"})
def single(self: Light, key: str, number: int, seconds: float = 0.02) -> None:
    """At most one of a key at a time."""
    work(self, key, number, seconds)


@app.task(base=Light, bind=True, name="limited", heimdall={"times": LIMIT_TIMES, "per": LIMIT_PER})
def limited(self: Light, key: str, number: int) -> None:
    """Never faster than allowed."""
    work(self, key, number)


@app.task(base=Heavy, bind=True, name="first")
def first(self: Heavy, key: str, number: int) -> str:
    """The heavy beginning of a chain."""
    work(self, key, number)
    return key


@app.task(base=Light, bind=True, name="second")
def second(self: Light, before: str, key: str, number: int) -> None:
    """The light end of a chain, sent by the worker that ran the first."""
    work(self, key, number)
