"""The queue of dead letters in RabbitMQ, where it meets what was there before."""

from __future__ import annotations

import pytest
from celery import Celery

from celery_showcase_presets import apply_presets
from celery_showcase_presets.dead_letters import dead_letters_of
from celery_toolkit_core.errors import InvalidParameter

pytestmark = pytest.mark.rabbitmq


@pytest.fixture
def make(rabbitmq_url):
    apps = []

    def make(**settings):
        app = Celery("letters", broker=rabbitmq_url, set_as_current=False)
        apply_presets(app, **settings)
        apps.append(app)
        return app

    yield make
    for app in apps:
        app.close()


def test_a_queue_of_another_size_stays_as_it_is(make):
    for most in (5, 6):
        letters = dead_letters_of(make(showcase_dead_letters_most=most))
        letters.prepare()
        assert len(letters) == 0
        assert list(letters) == []


def test_no_queue_is_no_letter(make):
    assert len(dead_letters_of(make())) == 0
    assert list(dead_letters_of(make(showcase_dead_letters_queue="other.dead"))) == []


def test_a_letter_queue_in_which_tasks_wait_is_refused(make):
    with pytest.raises(InvalidParameter, match="showcase_dead_letters_queue"):
        dead_letters_of(make(showcase_dead_letters_queue="heavy"))
