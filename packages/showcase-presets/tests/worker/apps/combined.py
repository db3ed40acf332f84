"""Preset tasks that are unique or fair as well, in one application."""

from __future__ import annotations

import os
import signal

from celery_heimdall import HeimdallTask
from celery_ranch.task import RanchTask
from celery_showcase_presets import HeavyTask, LightTask, publisher_app
from celery_toolkit_testkit import log_event

app = publisher_app("combined")


@app.task(base=type("UniqueHeavy", (HeavyTask, HeimdallTask), {"abstract": True}), bind=True, name="report",
          retry_backoff_max=1, heimdall={"unique": True})  # fmt: skip
def report(self, number, kills):
    log_event(what="report", number=number, retries=self.request.retries)
    if self.request.retries < kills:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@app.task(base=type("FairLight", (LightTask, RanchTask), {"abstract": True}), bind=True, name="mail", lru_key="client",
          retry_backoff_max=1)  # fmt: skip
def mail(self, client, number, kills=0):
    log_event(what="mail", client=client, number=number)
    if self.request.retries < kills:
        os.kill(os.getpid(), signal.SIGKILL)
    return client
