"""The same presets on RabbitMQ: quorum queues, a topic exchange, pauses by Celery's native delayed delivery."""

from __future__ import annotations

import pytest

from celery_showcase_presets import publisher_app
from celery_showcase_presets.dead_letters import dead_letters_of
from celery_toolkit_testkit import eventually

pytestmark = pytest.mark.rabbitmq
PATIENCE = 90


@pytest.fixture
def app(celery_environment, rabbitmq_url, monkeypatch):
    monkeypatch.setenv("CELERY_BROKER_URL", rabbitmq_url)
    app = publisher_app()
    yield app
    app.close()


def test_a_light_task_that_fails_eight_times_succeeds_at_last(app, celery_worker_process, event_log):
    celery_worker_process("light_worker")
    assert app.send_task("light.stubborn", (8,), queue="light").get(timeout=PATIENCE) == 8
    assert [event["retries"] for event in event_log.events(what="attempt")] == list(range(9))


def test_a_heavy_task_is_tried_four_times_and_leaves_one_letter(app, celery_worker_process, event_log):
    celery_worker_process("heavy_worker")
    result = app.send_task("heavy.doomed", ("no way",), queue="heavy")
    with pytest.raises(ConnectionError):
        result.get(timeout=PATIENCE)
    assert [event["retries"] for event in event_log.events(what="attempt")] == [0, 1, 2, 3]
    (letter,) = eventually(lambda: list(dead_letters_of(app)), PATIENCE)
    assert (letter.id, letter.details["queue"]) == (result.id, "heavy")
