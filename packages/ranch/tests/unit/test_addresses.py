"""Where tickets go."""

from __future__ import annotations

import pytest
from celery import Celery
from kombu import Exchange, Queue
from kombu.transport.native_delayed_delivery import calculate_routing_key

from celery_ranch.application import Address
from celery_toolkit_core.celery.messages import StoredMessage


@pytest.fixture
def app():
    app = Celery("addresses", set_as_current=False)
    app.conf.task_queues = [Queue("images", Exchange("work", type="topic"), routing_key="image.resize")]
    yield app
    app.close()


def stored(exchange, routing_key):
    headers = {"id": "1", "task": "t"}
    return StoredMessage(b"", "application/json", "utf-8", headers, {}, exchange, routing_key)


@pytest.mark.parametrize(
    ("exchange", "routing_key", "expected", "name"),
    [
        ("", "celery", ("", "celery"), "celery"),
        ("work", "image.resize", ("work", "image.resize"), "images"),
        ("work", "image.crop", ("work", "image.crop"), "work/image.crop"),
        ("celery_delayed_27", calculate_routing_key(90, "image.resize"), ("work", "image.resize"), "images"),
    ],
    ids=["default exchange", "a queue of its own", "an unknown queue", "delayed by quorum queues"],
)
def test_a_ticket_goes_where_the_message_is_meant_to_go(app, exchange, routing_key, expected, name):
    address = Address.of(stored(exchange, routing_key), app)
    assert (address.exchange, address.routing_key) == expected
    assert address.name(app) == name
    again = Address.from_bytes(address.to_bytes())
    assert again.queue == address.queue
