"""Replaying many letters: each message is sent once, with its own id, whatever happens in between."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from celery_showcase_presets import publisher_app
from celery_showcase_presets.dead_letters import dead_letters_of, replay
from celery_toolkit_core.celery.messages import StoredMessage
from celery_toolkit_core.deadletters import DeadLetter
from celery_toolkit_testkit import eventually

BROKERS = [
    pytest.param(
        "redis",
        marks=pytest.mark.not_on("cluster", "unix", "sentinel", reason="as a broker URL kombu does not know it"),
    ),
    pytest.param("rabbitmq", marks=[pytest.mark.rabbitmq, pytest.mark.xdist_group("rabbitmq")]),
]


@pytest.fixture(params=BROKERS)
def app(request, redis_url, monkeypatch):
    broker = redis_url if request.param == "redis" else request.getfixturevalue("rabbitmq_url")
    monkeypatch.setenv("CELERY_BROKER_URL", broker)
    app = publisher_app(backend=redis_url)
    yield app
    app.close()


def bury(app, number, task="heavy.render", start=0):
    """Put letters as a worker does; their ids are the arguments of their tasks."""
    letters = dead_letters_of(app)
    letters.prepare()
    ids = [f"dead-{index}" for index in range(start, start + number)]
    for name in ids:
        headers = {"id": name, "task": task, "retries": 3, "lang": "py", "root_id": name, "showcase_kills": 2}
        message = StoredMessage(
            body=json.dumps([[name], {}, {}]).encode(),
            content_type="application/json",
            content_encoding="utf-8",
            headers=headers,
            properties={"correlation_id": name, "delivery_mode": 2, "priority": 0},
            exchange="",
            routing_key="heavy",
        )
        details = {"queue": "heavy", "args": f"({name!r},)", "exception": "ConnectionError()", "traceback": "x" * 2000}
        letters.put(DeadLetter(id=name, task=task, reason="failed", message=message.to_bytes(), details=details))
    eventually(lambda: len(letters) >= number)
    return ids


def sent(app, *, at_least=0):
    """The messages of the queue ``heavy``, in the order in which they will be delivered."""
    with app.connection_for_read() as connection:
        queue = app.amqp.queues["heavy"](connection.default_channel)
        queue.declare()
        found = []
        while (message := queue.get(no_ack=True)) is not None or len(found) < at_least:
            if message is not None:
                found.append(message)
    return found


def test_replayed_messages_keep_their_id_and_begin_at_their_first_attempt(app):
    ids = bury(app, 3)
    assert replay(app) == ids
    messages = sent(app, at_least=3)
    assert [message.headers["id"] for message in messages] == ids
    assert [message.properties["correlation_id"] for message in messages] == ids
    assert [json.loads(message.body)[0] for message in messages] == [[name] for name in ids]
    assert {message.headers["retries"] for message in messages} == {0}
    assert not any("showcase_kills" in message.headers for message in messages)
    assert list(dead_letters_of(app)) == []


def test_letters_are_chosen_by_id_by_task_and_by_their_time(app):
    first = bury(app, 2)
    moment = list(dead_letters_of(app))[-1].at
    eventually(lambda: time.time() > moment + 0.01)
    second = bury(app, 2, task="heavy.doomed", start=2)
    cut = next(letter.at for letter in dead_letters_of(app) if letter.id == second[0])
    assert replay(app, ["nobody"]) == []
    assert replay(app, [first[0]]) == [first[0]]
    assert replay(app, task="heavy.render", since=cut) == []
    assert replay(app, since=cut) == second
    assert replay(app, task="heavy.render") == [first[1]]


def test_letters_are_counted_found_paged_and_purged(app):
    ids = bury(app, 5)
    letters = dead_letters_of(app)
    assert len(letters) == 5
    assert [letter.id for letter in letters] == ids
    assert letters.find(ids[3]).details["args"] == f"({ids[3]!r},)"
    assert letters.find("nobody") is None
    page = letters.page(count=2)
    assert [letter.id for letter in page] == ids[:2]
    assert [letter.id for letter in letters.page(page[-1].cursor, count=2)] == ids[2:4]
    assert letters.purge([ids[0], ids[4], "nobody"]) == 2
    assert letters.purge_older(3600) == 0
    assert letters.purge_older() == 3
    assert len(letters) == 0


def test_replays_at_the_same_time_share_the_letters(app):
    ids = bury(app, 200)
    results = [[], []]
    threads = [threading.Thread(target=lambda into=into: into.extend(replay(app, ids))) for into in results]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results[0] + results[1]) == sorted(ids)
    assert sorted(message.headers["id"] for message in sent(app, at_least=200)) == sorted(ids)


def test_a_letter_that_cannot_be_read_stays_and_holds_up_no_other(app, caplog):
    ids = bury(app, 2)
    letters = dead_letters_of(app)
    if hasattr(letters, "queue"):
        with app.producer_or_acquire() as producer:
            producer.publish(b"?", exchange="", routing_key=letters.queue.name, headers={}, serializer="raw")
        eventually(lambda: len(letters) == 3)
    else:
        letters.put(DeadLetter(id="odd", task="heavy.render", reason="failed", message=b"?"))
    assert replay(app) == ids
    assert len(letters) == 1
    assert letters.purge_older() == 1


@pytest.mark.parametrize("number", [1000, pytest.param(10_000, marks=pytest.mark.long)])
def test_thousands_are_replayed_once_each(app, number, record_property):
    app.conf.showcase_dead_letters_most = number
    ids = bury(app, number)
    start = time.monotonic()
    assert replay(app) == ids
    record_property("seconds", seconds := time.monotonic() - start)
    print(f"{number} letters replayed in {seconds:.2f} s")
    assert sorted(message.headers["id"] for message in sent(app, at_least=number)) == sorted(ids)
    assert len(dead_letters_of(app)) == 0


KILLED = """
import os, signal, sys
from celery_showcase_presets import publisher_app
from celery_showcase_presets.dead_letters import dead_letters_of, replay
from celery_showcase_presets import rabbit_letters, redis_letters
from celery_toolkit_core.celery.messages import StoredMessage

app = publisher_app(backend=sys.argv[1])
letters = dead_letters_of(app)
left = int(sys.argv[2])


def deadly(function):
    def send(*args, **kwargs):
        global left
        answer = function(*args, **kwargs)
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    return send


if hasattr(letters, "queue"):
    rabbit_letters.RabbitLetters._send = deadly(rabbit_letters.RabbitLetters._send)
else:
    letters._lease = 0.5
    StoredMessage.publish = deadly(StoredMessage.publish)
replay(app)
"""


def test_a_replay_that_was_killed_after_sending_leads_to_one_admission_of_each(app, redis_url):
    """On RabbitMQ nothing was sent; on Redis five messages were, and the workers drop one of each pair."""
    ids = bury(app, 10)
    done = subprocess.run([sys.executable, "-c", KILLED, redis_url, "5"], cwd=Path(__file__).parent, timeout=60)
    assert done.returncode == -9
    letters = dead_letters_of(app)
    replayed = []
    eventually(lambda: replayed.extend(replay(app)) or len(replayed) == 10)
    assert sorted(replayed) == sorted(ids)
    messages = sent(app, at_least=10)
    copies = [message.headers.get("showcase_replay") for message in messages]
    if hasattr(letters, "queue"):
        assert sorted(message.headers["id"] for message in messages) == sorted(ids)
    else:
        assert len(messages) == 15
        # Each copy asks twice: it may be delivered again.
        admitted = [
            message.headers["id"] for message, copy in zip(messages, copies, strict=True) if letters.admit(*copy)
        ]
        assert sorted(admitted) == sorted(ids)
        assert sum(letters.admit(*copy) for copy in copies) == 10
