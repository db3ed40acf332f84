"""Tasks that carry several of our pieces at once; the order of the bases varies on purpose."""

from __future__ import annotations

import time

from celery import shared_task

from celery_heimdall import HeimdallTask
from celery_ranch import RanchTask
from celery_showcase_presets import HeavyTask, LightTask
from celery_toolkit_testkit import log_event


class UniqueHeavy(HeavyTask, HeimdallTask):
    abstract = True


class FairHeavy(RanchTask, HeavyTask):
    abstract = True


class UniqueFair(HeimdallTask, RanchTask):
    abstract = True
    acks_late = True


class FairUnique(RanchTask, HeimdallTask):
    abstract = True
    acks_late = True


class Everything(HeavyTask, HeimdallTask, RanchTask):
    abstract = True


class LightEverything(RanchTask, LightTask, HeimdallTask):
    abstract = True


class LimitedHeavy(HeimdallTask, HeavyTask):
    abstract = True


def work(task, name, seconds=0.0):
    where = task.request.hostname.partition("@")[0]
    log_event(what="start", task=task.name, name=name, id=task.request.id, worker=where, retries=task.request.retries)
    time.sleep(seconds)
    log_event(what="end", task=task.name, name=name, id=task.request.id, worker=where)


@shared_task(base=UniqueHeavy, bind=True, name="unique_heavy", heimdall={"unique": True}, retry_backoff_max=1)
def unique_heavy(self, name):
    work(self, name)
    raise ConnectionError(name)


@shared_task(base=FairHeavy, bind=True, name="fair_heavy", retry_backoff_max=1)
def fair_heavy(self, name, failures=0):
    work(self, name)
    if self.request.retries < failures:
        raise ConnectionError(name)
    return name


@shared_task(base=UniqueFair, bind=True, name="unique_fair", heimdall={"unique": True})
def unique_fair(self, name, seconds=0.0):
    work(self, name, seconds)
    return name


@shared_task(base=FairUnique, bind=True, name="limited_fair", heimdall={"times": 2, "per": 2})
def limited_fair(self, name):
    work(self, name)
    return name


@shared_task(base=RanchTask, bind=True, name="plain_fair")
def plain_fair(self, name):
    work(self, name)
    return name


@shared_task(base=UniqueHeavy, bind=True, name="ring.unique", heimdall={"unique": True})
def ring_unique(self, number, customer, seconds=0.0):
    work(self, (number, customer), seconds)
    return customer


@shared_task(base=FairHeavy, bind=True, name="ring.fair")
def ring_fair(self, number, customer, seconds=0.0):
    work(self, (number, customer), seconds)
    return customer


@shared_task(base=HeavyTask, bind=True, name="ring.stumbling", retry_backoff_max=1)
def ring_stumbling(self, customer, failures):
    work(self, customer)
    if self.request.retries < failures:
        raise ConnectionError(customer)
    return customer


@shared_task(base=LimitedHeavy, bind=True, name="ring.limited", heimdall={"times": 2, "per": 2})
def ring_limited(self, number, customer):
    work(self, (number, customer))
    return number


@shared_task(base=HeimdallTask, bind=True, name="unique_limited", heimdall={"unique": True, "times": 2, "per": 2})
def unique_limited(self, number):
    work(self, number)
    return number


def all_four(self, number, customer, failures=0, seconds=0.05):
    work(self, (number, customer), seconds)
    if self.request.retries < failures:
        raise ConnectionError(customer)
    return f"{customer} {number}"


for base, name in ((Everything, "ring.everything"), (LightEverything, "ring.light_everything")):
    limit = {"unique": True, "times": 5, "per": 1}
    shared_task(base=base, bind=True, name=name, heimdall=limit, retry_backoff_max=1)(all_four)


@shared_task(base=LightTask, bind=True, name="tail")
def tail(self, what, customer):
    work(self, customer)
    return f"{what} done"
