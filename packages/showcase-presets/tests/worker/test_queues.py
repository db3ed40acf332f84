"""Queues, purge and status give exact figures on both brokers."""

from __future__ import annotations

import json

import pytest

from celery_showcase_presets import publisher_app
from celery_toolkit_testkit import eventually
from celery_toolkit_testkit.plugin import missing
from celery_toolkit_testkit.rabbitmq import RabbitNotFound, RabbitServer

PATIENCE = 90


@pytest.fixture
def depths(showcase):
    def read():
        rows = json.loads(showcase("queues", "--json").stdout)
        return {row["queue"]: (row["waiting"], row["unacknowledged"]) for row in rows}

    return read


@pytest.fixture
def app(celery_environment):
    app = publisher_app()
    yield app
    app.close()


@pytest.fixture
def rabbit_app(celery_environment, rabbitmq_url, monkeypatch):
    monkeypatch.setenv("CELERY_BROKER_URL", rabbitmq_url)
    app = publisher_app()
    yield app
    app.close()


@pytest.fixture(scope="module")
def managed_rabbit():
    try:
        server = RabbitServer(plugins=["rabbitmq_management"])
    except RabbitNotFound as error:
        missing(str(error))
    with server:
        yield server


def take(app, queue, number, hold):
    """Fetch messages without acknowledging them, as a worker does."""
    connection = app.connection_for_read()
    hold.append(connection)
    bound = app.amqp.queues[queue](connection.default_channel)
    assert all(eventually(bound.get) for _ in range(number))


@pytest.fixture
def hold():
    connections = []
    yield connections
    for connection in connections:
        connection.close()


def test_redis_counts_all_priorities_and_what_workers_have_in_hand(app, hold, showcase, depths):
    for priority in (0, 3, 6, 9, 9):
        app.send_task("heavy.render", (0,), queue="heavy", priority=priority)
    for _ in range(7):
        app.send_task("light.announce", (0,), queue="light")
    take(app, "heavy", 2, hold)
    take(app, "light", 1, hold)
    assert depths() == {"heavy": (3, 2), "light": (6, 1)}
    assert showcase("purge", "heavy", "--yes").stdout == "3 removed\n"
    assert depths() == {"heavy": (0, 2), "light": (6, 1)}
    assert showcase("purge", "--yes").stdout == "6 removed\n"
    assert showcase("purge", "--yes").stdout == "0 removed\n"


@pytest.mark.rabbitmq
def test_rabbitmq_counts_what_waits_and_says_who_would_know_the_rest(rabbit_app, hold, showcase, depths):
    for priority in (0, 5):
        rabbit_app.send_task("heavy.render", (0,), queue="heavy", priority=priority)
    rabbit_app.send_task("light.announce", (0,), queue="light")
    take(rabbit_app, "heavy", 1, hold)
    eventually(lambda: depths() == {"heavy": (1, None), "light": (1, None)}, PATIENCE)
    told = showcase("queues").stderr
    assert "enable rabbitmq_management" in told
    assert len(told.splitlines()) == 1
    assert "guest" not in told
    assert showcase("purge", "--yes").stdout == "2 removed\n"
    assert depths() == {"heavy": (0, None), "light": (0, None)}
    assert "RabbitMQ 3." in showcase("status").stdout


@pytest.mark.rabbitmq
@pytest.mark.xdist_group("rabbitmq")
def test_rabbitmq_with_its_management_api_counts_what_workers_have_in_hand(
    managed_rabbit, celery_environment, hold, monkeypatch, depths
):
    """RabbitMQ renews the figures of quorum queues each five seconds."""
    monkeypatch.setenv("CELERY_BROKER_URL", managed_rabbit.fresh_url())
    monkeypatch.setenv("MANAGEMENT_URL", f"http://127.0.0.1:{managed_rabbit.management_port}")
    app = publisher_app()
    hold.append(app)
    for _ in range(5):
        app.send_task("heavy.render", (0,), queue="heavy")
    app.send_task("light.announce", (0,), queue="light")
    take(app, "heavy", 2, hold)
    eventually(lambda: depths() == {"heavy": (3, 2), "light": (1, 0)}, PATIENCE)


def test_status_names_the_broker_its_workers_and_the_dead_letters(app, celery_worker_process, showcase):
    celery_worker_process("heavy_worker", name="big")
    found = json.loads(showcase("status", "--json", "--timeout", "5").stdout)
    assert found["workers"] == [{"worker": "big@test", "queues": ["heavy"]}]
    assert found["dead_letters"] == 0
    assert found["broker"].split()[2] == "at"


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["purge", "hevy", "--yes"], 1, "there is no queue hevy; the application has heavy, light"),
        (["purge"], 1, "--yes"),
        (["dead", "replay", "--since", "yesterday"], 2, "neither a moment"),
        (["dead", "replay"], 2, "--since"),
        (["dead", "replay", "nobody"], 1, "no such dead letter"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(showcase, arguments, code, sentence):
    told = showcase(*arguments, code=code).stderr
    assert sentence in told.splitlines()[-1]


@pytest.mark.parametrize("command", [["queues"], ["status"], ["purge", "--yes"], ["dead", "list"]], ids=" ".join)
@pytest.mark.parametrize(
    "broker", ["redis://:s3cret@127.0.0.1:1/0", "amqp://me:s3cret@127.0.0.1:1//"], ids=["redis", "amqp"]
)
def test_a_broker_that_is_away_is_one_sentence_without_its_password(
    celery_environment, monkeypatch, showcase, command, broker
):
    monkeypatch.setenv("CELERY_BROKER_URL", broker)
    monkeypatch.setenv("CELERY_RESULT_BACKEND", "redis://:s3cret@127.0.0.1:1/0")
    done = showcase(*command, code=1)
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("Error: ")
    assert "s3cret" not in done.stdout + done.stderr
