"""An application with mistakes that show only when all of it is known; with ``FAULT=routers`` one more."""

from __future__ import annotations

import os

from celery import Celery

from celery_chain_router import ChainRouter
from celery_heimdall import HeimdallTask
from celery_ranch import lru_task

fault = os.environ["FAULT"]
app = Celery("contradicting", broker=os.environ["CELERY_BROKER_URL"], backend=os.environ["CELERY_RESULT_BACKEND"])
app.conf.task_routes = [ChainRouter(), ChainRouter()] if fault == "routers" else None


@app.task(base=HeimdallTask, heimdall={"unique": True})
def unique():
    """A task that brings heimdall into the worker."""


@lru_task(app)
def fair():
    """A task that brings ranch into the worker."""


# The base is forgotten.
@app.task(name="stray", heimdall={"unique": True}, lru_key="client")
def stray(client=None):
    """A task that looks as though it were unique, or fair."""
