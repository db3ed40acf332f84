"""Doctor names every danger of a bad configuration, and is silent on the presets."""

from __future__ import annotations

import json

import pytest
from celery import Celery

from celery_showcase_presets import HeavyTask, apply_presets
from celery_showcase_presets.doctor import CHECKS, examine
from celery_toolkit_testkit import eventually

DANGERS = {
    "visibility-timeout": "nightly may take longer",
    "time-limits": "charge has no time_limit",
    "late-acknowledgement": "charge is acknowledged late",
    "endless-redelivery": "charge has reject_on_worker_lost",
    "retries": "fetch is retried for ever",
    "prefetch": "worker_prefetch_multiplier is 0",
    "serializers": "accept_content has pickle",
    "utc": "enable_utc is off",
    "result-retries": "one cut connection to the results fails a task",
    "results-expire": "result_expires is not set",
    "separate-databases": "share one database",
    "eager": "task_always_eager is on",
    "showcase-settings": "did you mean showcase_dead_letters?",
    "soft-shutdown": "worker_soft_shutdown_timeout is 0",
    "node-names": "2 workers are called twin@test",
    "queues-consumed": "no worker consumes the queue night",
    "eviction": "maxmemory-policy allkeys-lru",
}


def shop(**settings):
    app = Celery("shop", broker="redis://127.0.0.1:1/0", backend="redis://127.0.0.1:1/1", set_as_current=False)
    apply_presets(app, **settings)
    return app


def names(app, level=None):
    return [finding.check for finding in examine(app, look=False) if level in (None, finding.level)]


def test_every_danger_of_a_bad_configuration_is_named(showcase, celery_worker_process, redis_client, monkeypatch):
    redis_client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        for _ in range(2):
            celery_worker_process("careless", name="twin", concurrency=1)
        found = json.loads(showcase("doctor", "--json", "--timeout", "4", module="careless", code=1).stdout)
    finally:
        redis_client.config_set("maxmemory-policy", "noeviction")
    dangers = {}
    for finding in found:
        if finding["level"] == "danger":
            dangers.setdefault(finding["check"], []).append(finding["message"])
    assert set(dangers) == set(DANGERS)
    for check, sentence in DANGERS.items():
        assert any(sentence in message for message in dangers[check]), (check, dangers[check])
    assert any("means 3" in message for message in dangers["retries"])
    advice = {finding["check"] for finding in found if finding["level"] == "advice"}
    assert advice >= {"rate-limit", "track-started", "soft-shutdown-idle", "children"}


@pytest.mark.parametrize("module", ["publisher", "heavy_worker", "light_worker"])
def test_the_presets_are_silent_without_servers(showcase, module, monkeypatch):
    monkeypatch.delenv("CELERY_RESULT_BACKEND")  # the presets choose it
    assert showcase("doctor", "--offline", module=module).stdout == ""
    assert showcase("doctor", "--offline", "--json", module=module).stdout == "[]\n"


@pytest.mark.parametrize("broker", ["redis", pytest.param("rabbitmq", marks=[pytest.mark.rabbitmq, pytest.mark.long])])
def test_the_presets_are_silent_with_their_servers_and_workers(
    request, broker, showcase, celery_worker_process, monkeypatch
):
    monkeypatch.delenv("CELERY_RESULT_BACKEND")  # the presets choose it
    if broker == "rabbitmq":
        request.applymarker(pytest.mark.xdist_group("rabbitmq"))
        monkeypatch.setenv("CELERY_RESULT_BACKEND", request.getfixturevalue("redis_url"))
        monkeypatch.setenv("CELERY_BROKER_URL", request.getfixturevalue("rabbitmq_url"))
    celery_worker_process("heavy_worker", name="big", concurrency=1)
    assert "no worker consumes the queue light" in showcase("doctor", "--timeout", "3", code=1).stdout
    celery_worker_process("light_worker", name="small", concurrency=1)
    assert eventually(lambda: showcase("doctor", "--timeout", "3").stdout == "", 60)


def test_a_server_that_is_away_is_a_danger(showcase, monkeypatch):
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://:s3cret@127.0.0.1:1/0")
    monkeypatch.setenv("CELERY_RESULT_BACKEND", "redis://:s3cret@127.0.0.1:1/1")
    told = showcase("doctor", code=1).stdout
    assert "the broker cannot be reached" in told
    assert "the result backend cannot be reached" in told
    assert "s3cret" not in told


def test_presets_without_a_place_for_dead_letters_are_a_danger():
    app = Celery("shop", broker="memory://", set_as_current=False)
    apply_presets(app)
    assert any(finding.check == "dead-letters" for finding in examine(app, timeout=0.1))


def test_an_application_of_its_own_is_sound_with_the_presets():
    app = shop()

    @app.task(shared=False)
    def plain(): ...

    assert names(app) == []


def test_a_longer_task_than_the_presets_expect_is_named():
    app = shop()

    @app.task(base=HeavyTask, shared=False, soft_time_limit=7000, time_limit=7200)
    def long(): ...

    assert names(app) == ["visibility-timeout"]
    app = shop(longest_task=7200)

    @app.task(base=HeavyTask, shared=False, soft_time_limit=7000, time_limit=7200)
    def longer(): ...

    assert names(app) == []


def test_a_pause_longer_than_the_visibility_timeout_is_named():
    app = shop()

    @app.task(shared=False, default_retry_delay=6 * 3600)
    def patient(): ...

    assert names(app) == ["visibility-timeout"]


def test_the_kind_of_rabbitmq_queues_is_judged():
    from kombu import Exchange, Queue

    app = Celery("shop", broker="amqp://127.0.0.1:1//", set_as_current=False)
    quorum = Queue("late", Exchange("late", type="direct"), queue_arguments={"x-queue-type": "quorum"})
    apply_presets(app, task_queues=(quorum, Queue("light", Exchange("light", type="topic"))))
    assert names(app) == ["delayed-delivery", "replicated-queues"]


def test_local_time_is_an_advice():
    assert names(shop(timezone="Europe/Berlin"), "advice") == ["timezone"]
    assert names(shop(timezone="Europe/Berlin"), "danger") == []


def test_every_check_is_in_a_test():
    tested = set(DANGERS) | {"rate-limit", "track-started", "soft-shutdown-idle", "children"}
    tested |= {"broker", "result-backend", "dead-letters", "delayed-delivery", "replicated-queues", "timezone"}
    assert set(CHECKS) - tested == {"visibility-timeouts-differ", "concurrency"}


def test_workers_are_asked_for_their_own_settings(showcase, celery_worker_process):
    """One worker with a short visibility timeout repeats everybody's running tasks."""
    celery_worker_process("heavy_worker", env={"VISIBILITY": "90"}, concurrency=1)
    told = showcase("doctor", "--timeout", "3", code=1).stdout
    assert "has a visibility_timeout of 90 s" in told
