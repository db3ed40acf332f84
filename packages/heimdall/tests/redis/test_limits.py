"""Limits outside tasks, and changed at run time."""

from __future__ import annotations

import pytest
from celery import Celery

from celery_heimdall import Concurrency, HeimdallError, HeimdallTask, RateLimit, limit, set_limit, settle
from celery_heimdall.calls import Call
from celery_heimdall.claims import Claim
from celery_toolkit_core.errors import InvalidParameter
from celery_toolkit_core.limits import Limiter, LimitReached
from celery_toolkit_testkit import eventually


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


def test_one_part_of_a_limit_is_changed_for_a_time(app):
    api = RateLimit("1/m", name="api", by="org")

    @app.task(base=HeimdallTask, limits=[api], name="asking", shared=False)
    def asking(org):
        return None

    app.finalize()

    def times(org):
        claim = Claim(asking, Call(asking, (org,)), None, "a", 0, "a/1")
        (state,) = Limiter(claim.store.client, claim.store.space).peek(claim.demands)
        return state.times

    set_limit("api", "7/m", key="'acme'", lasting=0.2, app=app)
    assert times("other") == 1
    eventually(lambda: times("acme") == 1)
    set_limit("api", "7/m", key="'acme'", app=app)
    assert (times("acme"), times("other")) == (7, 1)
    set_limit("api", None, key="'acme'", app=app)
    assert times("acme") == 1


def test_a_block_waits_for_room_as_long_as_it_says(app):
    api = RateLimit("1/300ms", name="api")
    with limit(api, app=app):
        pass
    with pytest.raises(LimitReached), limit(api, wait=0.01, app=app):
        pass
    with limit(api, wait=10.0, app=app):
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
