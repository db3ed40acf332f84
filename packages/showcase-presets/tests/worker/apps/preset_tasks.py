"""Tasks of both pools, shared by the two worker applications."""

from __future__ import annotations

import os
import signal
import time

from celery import shared_task
from celery.exceptions import Reject

from celery_showcase_presets import HeavyTask, LightTask
from celery_toolkit_testkit import log_event


# Pauses of at most one second: the number of attempts is what matters here.
@shared_task(base=HeavyTask, bind=True, name="heavy.doomed", retry_backoff_max=1)
def doomed(self, why):
    log_event(what="attempt", retries=self.request.retries)
    raise ConnectionError(why)


@shared_task(base=LightTask, bind=True, name="light.stubborn", retry_backoff_max=1)
def stubborn(self, failures):
    log_event(what="attempt", retries=self.request.retries)
    if self.request.retries < failures:
        raise ConnectionError("not yet")
    return self.request.retries


@shared_task(base=HeavyTask, name="heavy.killer")
def killer():
    log_event(what="kill")
    os.kill(os.getpid(), signal.SIGKILL)


@shared_task(base=HeavyTask, name="heavy.endless", soft_time_limit=None, time_limit=1)
def endless():
    time.sleep(60)


@shared_task(base=HeavyTask, name="heavy.render")
def render(seconds):
    log_event(what="start")
    time.sleep(seconds)
    log_event(what="end")
    return seconds


@shared_task(base=LightTask, bind=True, name="light.announce")
def announce(self, value):
    return [value, self.request.hostname]


@shared_task(base=LightTask, name="light.forward")
def forward(value):
    return render.delay(value).id


@shared_task(base=HeavyTask, name="heavy.refuser")
def refuser(why):
    log_event(what="refuse")
    raise Reject(why, requeue=False)


@shared_task(name="tick")
def tick():
    log_event(what="tick")


@shared_task(base=HeavyTask, bind=True, name="heavy.fickle", retry_backoff_max=1)
def fickle(self):
    if self.request.retries == 0:
        raise ConnectionError("once")
    return self.request.retries
