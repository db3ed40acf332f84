"""The examples of celery-heimdall's README, word for word."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
from celery import Celery

PLAIN = """
from celery import shared_task
from celery_heimdall import HeimdallTask

@shared_task(base=HeimdallTask, heimdall={'unique': True})
def generate_report(customer_id):
    pass
"""

EXPIRY = """
from celery import shared_task
from celery_heimdall import HeimdallTask

@shared_task(
  base=HeimdallTask,
  heimdall={
    'unique': True,
    'unique_timeout': 60 * 60
  }
)
def generate_report(customer_id):
  pass
"""

CUSTOM_KEY = """
from celery import shared_task
from celery_heimdall import HeimdallTask

@shared_task(
  base=HeimdallTask,
  heimdall={
    'unique': True,
    'key': lambda args, kwargs: 'generate_report'
  }
)
def generate_report(customer_id):
  pass
"""

EXISTING = """
import time
from celery import shared_task
from celery_heimdall import HeimdallTask

@shared_task(base=HeimdallTask, heimdall={'unique': True})
def generate_report(customer_id):
  time.sleep(10)

def my_api_call(customer_id: int):
  return {
    'status': 'RUNNING',
    'task_id': generate_report.delay(customer_id).id
  }
"""

RAISING = """
import time
from celery import shared_task
from celery_heimdall import HeimdallTask, AlreadyQueuedError


@shared_task(
  base=HeimdallTask,
  heimdall={
    'unique': True,
    'unique_raises': True
  }
)
def generate_report(customer_id):
  time.sleep(10)


def my_api_call(customer_id: int):
  try:
    task = generate_report.delay(customer_id)
    return {'status': 'STARTED', 'task_id': task.id}
  except AlreadyQueuedError as exc:
    return {'status': 'ALREADY_RUNNING', 'task_id': exc.likely_culprit}
"""

INTERVAL = """
from celery import shared_task
from celery_heimdall import HeimdallTask

@shared_task(
  base=HeimdallTask,
  heimdall={
    'unique': True,
    'unique_timeout': 60 * 60,
    'unique_wait_for_expiry': True
  }
)
def generate_report(customer_id):
  pass
"""

RATE = """
from celery import shared_task
from celery_heimdall import HeimdallTask

@shared_task(
  base=HeimdallTask,
  heimdall={
    'times': 2,
    'per': 60
  }
)
def download_report_from_amazon(customer_id):
  pass
"""


@pytest.fixture
def example(redis_url, request):
    # As in the README: no application in sight, broker and Redis come from elsewhere.
    app = Celery(request.node.name, broker="memory://", set_as_current=True)
    app.conf.toolkit_redis_url = redis_url
    names = []

    def run(text):
        name = f"seed_example_{len(names)}_{request.node.name}"
        names.append(name)
        module = sys.modules[name] = ModuleType(name)
        exec(compile(text, name, "exec"), module.__dict__)
        return module

    yield run
    for name in names:
        del sys.modules[name]
    app.close()


@pytest.mark.parametrize("text", [PLAIN, EXPIRY, INTERVAL])
def test_the_second_call_gets_the_first_ones_task(example, text):
    module = example(text)
    first = module.generate_report.delay(1)
    assert module.generate_report.delay(1).id == first.id
    assert module.generate_report.delay(2).id != first.id


def test_one_report_at_a_time_for_all_customers(example):
    module = example(CUSTOM_KEY)
    assert module.generate_report.delay(1).id == module.generate_report.delay(2).id


def test_the_api_call_returns_the_running_task(example):
    module = example(EXISTING)
    first = module.my_api_call(1)
    assert first["status"] == "RUNNING"
    assert module.my_api_call(1) == first


def test_the_api_call_says_that_it_is_running_already(example):
    module = example(RAISING)
    first = module.my_api_call(1)
    assert first["status"] == "STARTED"
    assert module.my_api_call(1) == {"status": "ALREADY_RUNNING", "task_id": first["task_id"]}


def test_a_limited_task_is_queued_as_often_as_it_is_called(example):
    module = example(RATE)
    assert len({module.download_report_from_amazon.delay(1).id for _ in range(3)}) == 3
