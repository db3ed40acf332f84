"""An application with as many dangers as one can have; for doctor."""

from __future__ import annotations

import os

from celery import Celery

app = Celery("careless", broker=os.environ["CELERY_BROKER_URL"], backend=os.environ["CELERY_BROKER_URL"])
app.conf.update(
    accept_content=["json", "pickle"],
    task_serializer="pickle",
    enable_utc=False,
    result_expires=None,
    worker_prefetch_multiplier=0,
    broker_transport_options={"visibility_timeout": 60},
    task_always_eager=True,
    showcase_dead_leters=True,
    beat_schedule={"nightly": {"task": "nightly", "schedule": 3600.0, "options": {"queue": "night"}}},
)


@app.task(name="nightly", time_limit=3600, rate_limit="1/m")
def nightly(): ...


@app.task(name="charge", acks_late=True, reject_on_worker_lost=True, acks_on_failure_or_timeout=False)
def charge(): ...


@app.task(name="fetch", autoretry_for=(OSError,), max_retries=None)
def fetch(): ...


@app.task(name="notify", autoretry_for=(OSError,), retry_kwargs={"max_retries": None})
def notify(): ...
