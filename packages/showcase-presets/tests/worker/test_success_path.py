"""What dead letters cost a task that succeeds: nothing, counted on the wire."""

from __future__ import annotations

import pytest

from celery_showcase_presets import publisher_app
from celery_toolkit_testkit import eventually

PATIENCE = 90
TASKS = 20


@pytest.fixture
def app(celery_environment):
    app = publisher_app()
    yield app
    app.close()


def test_success_and_retries_send_nothing_to_the_place_of_the_letters(app, celery_worker_process, tcp_proxy):
    """The letters have a line of their own here, so that each byte on it is theirs."""
    proxy = tcp_proxy()
    celery_worker_process("heavy_worker", env={"LETTERS": proxy.url})
    results = [app.send_task("heavy.render", (0,), queue="heavy") for _ in range(TASKS)]
    results.append(app.send_task("heavy.fickle", (), queue="heavy"))
    assert [result.get(timeout=PATIENCE) for result in results] == [0] * TASKS + [1]
    assert (proxy.connections, proxy.round_trips) == (0, 0)
    app.send_task("heavy.doomed", ("away",), queue="heavy")
    eventually(lambda: proxy.commands["EVALSHA"], PATIENCE)
    assert proxy.connections == 1
