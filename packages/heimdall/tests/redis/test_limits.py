"""Limits outside tasks, and changed at run time."""

from __future__ import annotations

import pytest
from celery import Celery

from celery_heimdall import Concurrency, HeimdallError, RateLimit, limit, set_limit, settle
from celery_toolkit_core.errors import InvalidParameter
from celery_toolkit_core.limits import LimitReached


@pytest.fixture
def app(redis_url):
    app = Celery("limits", broker="memory://", set_as_current=False)
    app.conf.heimdall_redis_url = redis_url
    yield app
    app.close()


def test_a_block_of_plain_code_takes_the_limits_of_tasks(app):
    api, erp = RateLimit("2/m", name="api"), Concurrency(1, name="erp")
    with limit(api, erp, app=app), pytest.raises(LimitReached, match="erp"), limit(erp, app=app):
        pass
    with limit(api, app=app):
        pass
    with pytest.raises(LimitReached, match="api"), limit(api, app=app):
        pass


def test_without_an_application_the_current_one_is_meant(app):
    app.set_current()
    with limit(RateLimit("1/m", name="api")), pytest.raises(LimitReached), limit(RateLimit("1/m", name="api"), app=app):
        pass


def test_a_limit_is_changed_paused_and_restored_at_run_time(app):
    api = RateLimit("1/m", name="api")
    with limit(api, app=app):
        pass
    set_limit("api", "2/m", app=app)
    with limit(api, app=app):
        pass
    set_limit("api", "paused", app=app)
    with pytest.raises(LimitReached), limit(api, app=app):
        pass
    set_limit("api", None, app=app)
    with pytest.raises(LimitReached), limit(api, app=app):
        pass
    set_limit("erp", 2, app=app)
    erp = Concurrency(1, name="erp")
    with limit(erp, app=app), limit(erp, app=app):
        pass


@pytest.mark.parametrize(
    "unclear", [RateLimit("1/s"), RateLimit("1/s", name="x", by="a"), RateLimit(lambda: (1, 1), name="x")]
)
def test_a_limit_that_needs_a_call_is_refused_outside_one(app, unclear):
    with pytest.raises(InvalidParameter, match="name"), limit(unclear, app=app):
        pass


def test_settling_outside_a_task_is_a_clear_error():
    with pytest.raises(HeimdallError, match="no limited task"):
        settle(1)
