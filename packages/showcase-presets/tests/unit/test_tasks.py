from __future__ import annotations

import logging

import pytest
from celery import Celery

from celery_showcase_presets import HeavyBase, HeavyTask, LightTask
from celery_toolkit_core.errors import InvalidParameter


@pytest.fixture
def app():
    app = Celery("t", set_as_current=False)
    app.conf.update(task_always_eager=True, task_eager_propagates=False)
    yield app
    app.close()


def test_heavy_tasks_have_three_retries_and_light_tasks_no_limit(app):
    @app.task(shared=False, base=HeavyTask)
    def heavy(): ...

    @app.task(shared=False, base=LightTask)
    def light(): ...

    assert heavy.max_retries == 3
    assert light.max_retries is None
    assert heavy.retry_backoff_max == light.retry_backoff_max == 60
    assert heavy.acks_late
    assert light.acks_late
    assert HeavyBase is HeavyTask


def test_a_heavy_task_is_tried_four_times_and_then_fails(app):
    tries = []

    @app.task(shared=False, base=HeavyTask, bind=True)
    def heavy(self):
        tries.append(self.request.retries)
        raise ConnectionError("away")

    result = heavy.delay()
    assert tries == [0, 1, 2, 3]
    assert result.state == "FAILURE"
    assert isinstance(result.result, ConnectionError)


def test_a_light_task_succeeds_at_its_ninth_try(app):
    """`retry_kwargs={"max_retries": None}`, the usual way to write it, gives up after three retries."""
    tries = []

    @app.task(shared=False, base=LightTask)
    def light():
        tries.append(1)
        if len(tries) < 9:
            raise ConnectionError("away")
        return "done"

    assert light.delay().get() == "done"
    assert len(tries) == 9


def test_options_of_the_task_win(app):
    @app.task(shared=False, base=HeavyTask, max_retries=1, soft_time_limit=5, time_limit=6, acks_late=False)
    def heavy(): ...

    assert (heavy.max_retries, heavy.soft_time_limit, heavy.time_limit, heavy.acks_late) == (1, 5, 6, False)


def test_each_end_is_one_log_event_without_arguments(app, caplog):
    @app.task(shared=False, base=HeavyTask, name="pay", max_retries=1)
    def pay(card):
        raise ValueError(f"refused {card}")

    with caplog.at_level(logging.DEBUG, logger="celery_showcase_presets.tasks"):
        pay.delay("4000-1234")
    events = [record for record in caplog.records if record.name == "celery_showcase_presets.tasks"]
    assert [record.event for record in events] == ["task_will_retry", "task_failed"]
    assert events[1].task == "pay"
    assert events[1].error == "ValueError"
    assert not any("4000" in record.getMessage() for record in events)


@pytest.mark.parametrize(
    "options",
    [
        {"max_retries": "3"},
        {"max_retries": -1},
        {"max_kills": 0},
        {"reject_on_worker_lost": True},
        {"max_retries": True},
        {"retry_backoff_max": 0},
        {"retry_backoff_max": 0.5},
        {"retry_backoff": -1},
        {"retry_backoff": "fast"},
        {"soft_time_limit": 0},
        {"time_limit": float("nan")},
        {"soft_time_limit": 60, "time_limit": 60},
    ],
)
def test_options_that_cannot_be_meant_are_refused_at_decoration(app, options):
    with pytest.raises(InvalidParameter):

        @app.task(shared=False, lazy=False, base=HeavyTask, **options)
        def heavy(): ...
