"""A worker that gives a key back without waiting for the answer hears of it all the same."""

from __future__ import annotations

import pytest

from celery_heimdall.inspection import locks
from celery_toolkit_testkit import TcpProxy, eventually


@pytest.fixture
def proxy(celery_environment, redis_server, monkeypatch):
    """Between us and our Redis; not between Celery and its broker."""
    with TcpProxy(redis_server.url) as proxy:
        monkeypatch.setenv("GUARDED_REDIS", proxy.url)
        # Whoever does not release keeps the key for longer than a test waits.
        monkeypatch.setenv("GUARDED_LEASE", "120")
        yield proxy


def no_lock_is_left(app):
    return not list(locks(app.unique.heimdall_store))


def test_a_release_whose_connection_is_cut_is_made_again(proxy, celery_app_module, celery_worker_process, event_log):
    app = celery_app_module("guarded")
    worker = celery_worker_process("guarded", concurrency=1)
    for number in range(10):
        app.unique.delay(number).get(timeout=60)
    for number in range(10):
        app.unique.delay(number, seconds=0.3)
        event_log.wait_for(11 + number, what="begin")
        with proxy.silent():
            event_log.wait_for(11 + number, what="end")
            eventually(lambda number=number: worker.log().count("succeeded") == 11 + number)
            proxy.cut()
        eventually(lambda: no_lock_is_left(app))
    assert "release_failed" not in worker.log()
