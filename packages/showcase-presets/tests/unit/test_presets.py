from __future__ import annotations

from types import SimpleNamespace

import pytest
from celery import Celery, shared_task

from celery_showcase_presets import HeavyTask, LightTask, apply_presets, heavy_app, light_app, publisher_app
from celery_showcase_presets.dead_letters import dead_letters_of
from celery_showcase_presets.presets import visibility_timeout
from celery_showcase_presets.rabbit_letters import RabbitLetters
from celery_showcase_presets.redis_letters import RedisLetters
from celery_toolkit_core.errors import InvalidParameter

REDIS = "redis://127.0.0.1:6399/2"


@shared_task(base=HeavyTask)
def heavy(): ...


@shared_task(base=LightTask)
def light(): ...


@shared_task
def plain(): ...


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in ("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"):
        monkeypatch.delenv(name, raising=False)


def own(app):
    return {name.rpartition(".")[2] for name in app.tasks if name.startswith(__name__)}


def queue_of(app, task):
    return app.amqp.router.route({}, task.name, (), {}, app.tasks[task.name])["queue"].name


def test_each_worker_application_registers_only_its_own_tasks():
    assert own(publisher_app(broker=REDIS)) == {"heavy", "light", "plain"}
    assert own(heavy_app(broker=REDIS)) == {"heavy"}
    assert own(light_app(broker=REDIS)) == {"light", "plain"}


def test_a_task_of_the_other_pool_can_still_be_looked_up_to_send_it():
    app = heavy_app(broker=REDIS)
    assert light.name not in app.tasks
    assert app.tasks[light.name].name == light.name
    assert app.tasks.get(light.name).name == light.name
    with pytest.raises(KeyError):
        app.tasks["nobody"]


@pytest.mark.parametrize("make", [publisher_app, heavy_app, light_app])
def test_every_application_sends_each_task_to_the_queue_of_its_pool(make):
    app = make(broker=REDIS)
    assert [queue_of(app, task) for task in (heavy, light, plain)] == ["heavy", "light", "light"]


def test_a_task_sent_by_name_reaches_the_queue_of_its_pool():
    app = publisher_app(broker=REDIS)
    app.set_current()
    app.finalize()
    assert app.amqp.router.route({}, heavy.name)["queue"].name == "heavy"


def test_a_worker_application_consumes_its_own_queue_only():
    for make, name in ((heavy_app, "heavy"), (light_app, "light")):
        app = make(broker=REDIS)
        app.finalize()
        assert list(app.amqp.queues.consume_from) == [name]


def test_results_live_in_the_next_database_of_a_redis_broker():
    assert publisher_app(broker=REDIS).conf.result_backend == "redis://127.0.0.1:6399/3"
    assert publisher_app(broker="rediss://:s%3At@h:1").conf.result_backend == "rediss://:s%3At@h:1/1"
    assert publisher_app(broker=REDIS, backend="cache+memory://").conf.result_backend == "cache+memory://"
    assert publisher_app(broker="amqp://h").conf.result_backend is None
    assert publisher_app(broker="sentinel://a:1;sentinel://b:1").conf.result_backend is None


def test_only_json_is_accepted_and_time_is_utc():
    conf = publisher_app(broker=REDIS).conf
    assert conf.accept_content == conf.result_accept_content == ["json"]
    assert conf.task_serializer == conf.result_serializer == conf.event_serializer == "json"
    assert conf.enable_utc
    assert conf.timezone == "UTC"
    assert conf.result_extended


def test_all_applications_have_the_same_visibility_timeout_above_twice_the_longest_task():
    """kombu restores by the consumer's own timeout: one short one repeats everybody's running tasks."""
    timeouts = {
        make(broker=REDIS).conf.broker_transport_options["visibility_timeout"]
        for make in (publisher_app, heavy_app, light_app)
    }
    assert timeouts == {visibility_timeout(HeavyTask.time_limit)}
    assert timeouts.pop() > 2 * HeavyTask.time_limit
    app = heavy_app(broker=REDIS, longest_task=36_000)
    assert app.conf.broker_transport_options["visibility_timeout"] > 2 * 36_000


def test_pools_differ_in_prefetch_children_and_soft_shutdown():
    heavy_conf, light_conf = heavy_app(broker=REDIS).conf, light_app(broker=REDIS).conf
    assert heavy_conf.worker_prefetch_multiplier == 1
    assert light_conf.worker_prefetch_multiplier == 4
    assert 0 < heavy_conf.worker_max_tasks_per_child < light_conf.worker_max_tasks_per_child
    assert heavy_conf.worker_soft_shutdown_timeout > light_conf.worker_soft_shutdown_timeout > 0
    assert heavy_conf.worker_enable_soft_shutdown_on_idle


def test_what_the_application_has_set_stays():
    app = Celery("own", broker=REDIS, set_as_current=False)
    app.conf.update(
        worker_prefetch_multiplier=9,
        broker_transport_options={"visibility_timeout": 99_999, "sep": ":"},
        task_routes={"a.*": "mine"},
    )
    apply_presets(app, pool="heavy", result_expires=7)
    assert app.conf.worker_prefetch_multiplier == 9
    assert app.conf.result_expires == 7
    options = app.conf.broker_transport_options
    assert (options["visibility_timeout"], options["sep"], options["socket_keepalive"]) == (99_999, ":", True)
    assert app.amqp.router.route({}, "a.b")["queue"].name == "mine"


def test_what_django_settings_say_stays():
    settings = SimpleNamespace(CELERY_TIMEZONE="Europe/Vienna", CELERY_BROKER_URL=REDIS)
    app = Celery("django", set_as_current=False)
    app.config_from_object(settings, namespace="CELERY")
    apply_presets(app)
    assert app.conf.timezone == "Europe/Vienna"
    assert app.conf.accept_content == ["json"]
    assert app.conf.result_backend == "redis://127.0.0.1:6399/3"


def test_applying_twice_changes_nothing():
    app = publisher_app(broker=REDIS)
    before = app.conf.table(with_defaults=True)
    apply_presets(app)
    assert app.conf.table(with_defaults=True) == before


def test_rabbitmq_gets_quorum_queues_a_topic_exchange_and_confirmations():
    """Celery's delayed delivery on quorum queues refuses direct exchanges."""
    queues = heavy_app(broker="amqp://guest@127.0.0.1//").amqp.queues
    assert {queue.exchange.type for queue in queues.values()} == {"topic"}
    assert {queue.queue_arguments["x-queue-type"] for queue in queues.values()} == {"quorum"}
    assert {queue.queue_arguments["x-dead-letter-exchange"] for queue in queues.values()} == {"showcase.dead"}
    assert publisher_app(broker="amqp://h").conf.broker_transport_options["confirm_publish"]


def test_results_end_after_a_day():
    assert publisher_app(broker=REDIS).conf.result_expires == 86400


def test_long_tasks_show_that_they_run():
    assert heavy_app(broker=REDIS).tasks[heavy.name].track_started


def test_every_task_has_a_time_limit():
    for make, seconds in ((publisher_app, 31 * 60), (heavy_app, 31 * 60), (light_app, 300)):
        assert make(broker=REDIS).conf.task_time_limit == seconds
        # It would take the place of a shorter hard limit.
        assert make(broker=REDIS).conf.task_soft_time_limit is None
    assert publisher_app(broker=REDIS, longest_task=7200).conf.task_time_limit == 7200


def test_a_pool_may_be_given_after_the_presets():
    app = publisher_app(broker=REDIS, worker_max_tasks_per_child=7)
    apply_presets(app, pool="light")
    assert (app.conf.worker_prefetch_multiplier, app.conf.worker_max_tasks_per_child) == (4, 7)


def test_dead_letters_are_kept_by_the_broker_where_that_is_rabbitmq():
    assert isinstance(dead_letters_of(publisher_app(broker="amqp://h")), RabbitLetters)
    assert isinstance(dead_letters_of(publisher_app(broker=REDIS)), RedisLetters)
    both = publisher_app(broker="amqp://h", backend=REDIS, showcase_dead_letters_store="redis")
    assert isinstance(dead_letters_of(both), RedisLetters)
    assert dead_letters_of(both) is dead_letters_of(both)


@pytest.mark.parametrize(
    ("broker", "settings"),
    [
        ("amqp://h", {"showcase_dead_letters_queue": "heavy"}),
        ("amqp://h", {"showcase_dead_letters_store": "postgres"}),
        (REDIS, {"showcase_dead_letters_store": "rabbitmq"}),
        (REDIS, {"showcase_dead_letters_keep": -1}),
        (REDIS, {"showcase_dead_letters_most": "many"}),
        ("amqp://h", {"showcase_management_url": "rabbit:15672"}),
    ],
)
def test_a_place_for_dead_letters_that_cannot_be_meant_is_refused_in_one_line(broker, settings):
    with pytest.raises(InvalidParameter, match=next(iter(settings))) as refused:
        dead_letters_of(publisher_app(broker=broker, **settings))
    assert len(str(refused.value).splitlines()) == 1


def test_a_setting_that_does_not_exist_is_answered_with_the_nearest():
    with pytest.raises(InvalidParameter, match="worker_prefetch_multiplier"):
        heavy_app(broker=REDIS, worker_prefetch_multiplyer=1)


@pytest.mark.parametrize("options", [{"pool": "medium"}, {"longest_task": -1}, {"longest_task": "1h"}])
def test_arguments_that_cannot_be_meant_are_refused(options):
    with pytest.raises(InvalidParameter):
        apply_presets(Celery("bad", broker=REDIS, set_as_current=False), **options)
