from __future__ import annotations

import datetime
import pickle
from decimal import Decimal
from typing import Any

import pytest
from celery import Celery
from hypothesis import given
from hypothesis import strategies as st
from kombu import Connection, Exchange, Queue
from kombu.exceptions import EncodeError
from kombu.message import Message

from celery_toolkit_core.celery.messages import MAGIC, StoredMessage, seconds_until, undelayed
from celery_toolkit_core.errors import InvalidParameter, Quarantined


def stored(**changes: Any) -> StoredMessage:
    fields: dict[str, Any] = {
        "body": b"[[1], {}, {}]",
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "headers": {"id": "abc", "task": "tasks.add", "retries": 0},
        "properties": {"correlation_id": "abc", "priority": 3, "delivery_mode": 2},
        "exchange": "",
        "routing_key": "celery",
    }
    return StoredMessage(**{**fields, **changes})


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.decimals(allow_nan=False)
    | st.datetimes(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.binary(), st.dictionaries(st.text(), values), st.dictionaries(st.text(), values))
def test_the_envelope_keeps_every_byte_and_every_header(body: bytes, headers: Any, properties: Any) -> None:
    message = stored(body=body, headers={**headers, "id": "a", "task": "b"}, properties=properties)
    assert StoredMessage.from_bytes(message.to_bytes()) == message


def test_amqp_typed_headers_survive_the_envelope() -> None:
    headers = {
        "id": "a",
        "task": "b",
        "when": datetime.datetime(2026, 1, 2, 3, 4, 5),
        "price": Decimal("1.10"),
        "raw": b"\xff\x00",
        "big": 2**62,
        "table": {"empty": [], "none": None},
    }
    assert StoredMessage.from_bytes(stored(headers=headers).to_bytes()).headers == headers


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"ctm",
        MAGIC,
        b"not a message at all",
        b"ctm2" + stored().to_bytes()[4:],
        stored().to_bytes()[:-1],
        stored().to_bytes() + b"x",
        stored().to_bytes().replace(b'"exchange"', b'"exchangE"'),
        stored().to_bytes().replace(b'{"content_type', b'["content_type'),
        stored().to_bytes().replace(b'"id": "abc"', b'"ID": "abc"'),
        stored(headers={"id": 1, "task": {"__type__": "bytes", "__value__": 5}}).to_bytes(),
    ],
)
def test_bytes_that_cannot_be_read_are_quarantined(data: bytes) -> None:
    with pytest.raises(Quarantined) as caught:
        StoredMessage.from_bytes(data)
    assert caught.value.reason
    assert pickle.loads(pickle.dumps(caught.value)).reason == caught.value.reason


@given(st.binary(max_size=200))
def test_no_bytes_whatever_raise_anything_else(data: bytes) -> None:
    for forged in (data, MAGIC + data):
        with pytest.raises(Quarantined):
            StoredMessage.from_bytes(forged)


def test_capture_drops_what_belongs_to_the_one_delivery_and_the_compression() -> None:
    received = Message(
        body=b"{}",
        delivery_tag="t1",
        content_type="application/json",
        content_encoding="utf-8",
        delivery_info={"exchange": "", "routing_key": "jobs"},
        properties={
            "correlation_id": "abc",
            "reply_to": "me",
            "priority": 7,
            "delivery_mode": 1,
            "delivery_tag": "t1",
            "body_encoding": "base64",
            "delivery_info": {"exchange": "", "routing_key": "jobs"},
        },
        headers={"id": "abc", "task": "tasks.add"},
    )
    received.headers["compression"] = "application/x-gzip"  # as it stands after kombu has decompressed the body
    message = StoredMessage.capture(received)
    assert message.properties == {"correlation_id": "abc", "reply_to": "me", "priority": 7, "delivery_mode": 1}
    assert message.headers == {"id": "abc", "task": "tasks.add"}
    assert (message.exchange, message.routing_key) == ("", "jobs")
    assert (message.task_id, message.task_name) == ("abc", "tasks.add")


def test_the_brokers_own_expiry_is_left_to_the_expires_header() -> None:
    """Sent again it would start its clock anew, and let the message vanish without a word to the result backend."""
    properties = {"expiration": "5000"}
    received = Message(b"{}", properties=properties, headers={"id": "a", "task": "b", "expires": "2030-01-01T00:00:00"})
    assert StoredMessage.capture(received).properties == {}
    received.headers["expires"] = None
    assert StoredMessage.capture(received).properties == properties


def test_a_message_of_protocol_1_is_refused() -> None:
    with pytest.raises(InvalidParameter) as caught:
        StoredMessage.capture(Message(b'{"task": "a", "id": "b"}'))
    assert caught.value.parameter == "task_protocol"


def test_headers_change_in_a_copy() -> None:
    message = stored()
    changed = message.with_headers(retries=None, heimdall={"wake": 1}, missing=None)
    assert changed.headers == {"id": "abc", "task": "tasks.add", "heimdall": {"wake": 1}}
    assert message == stored()


class Channel:
    no_ack_consumers = None

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def basic_ack(self, tag: str, multiple: bool = False) -> None:
        self.calls.append(("ack", tag))

    def basic_reject(self, tag: str, requeue: bool) -> None:
        self.calls.append(("reject", tag, requeue))


def test_to_acknowledge_a_rebuilt_message_is_to_acknowledge_its_carrier() -> None:
    channel = Channel()
    carrier = Message(b"ticket", delivery_tag="t9", channel=channel, delivery_info={"redelivered": True})
    message = stored().rebuild(carrier)
    assert (message.body, message.delivery_tag, message.channel) == (b"[[1], {}, {}]", "t9", channel)
    assert message.delivery_info == {"exchange": "", "routing_key": "celery", "redelivered": True}
    assert message.decode() == [[1], {}, {}]
    assert not message.acknowledged
    message.ack()
    assert channel.calls == [("ack", "t9")]
    assert carrier.acknowledged
    assert message.acknowledged
    with pytest.raises(Message.MessageStateError):
        message.reject()


class Recorder:
    """An application's producer whose last act, to publish, is recorded instead."""

    def __init__(self, app: Celery) -> None:
        self.app = app
        self.published: list[tuple[Any, dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def publish(self, body: Any, **options: Any) -> None:
        self.published.append((body, options))

    def __enter__(self) -> Recorder:
        self.real = self.app.amqp.producer_pool.acquire(block=True)
        return self

    def __exit__(self, *_: Any) -> None:
        self.real.release()


@pytest.fixture
def app() -> Any:
    with Celery("unit", broker="memory://", backend="cache+memory://", set_as_current=False) as app:
        yield app


@pytest.mark.parametrize("serializer", ["json", "pickle"])
@pytest.mark.parametrize("compression", [None, "gzip"])
@pytest.mark.parametrize("exchange", ["", "jobs", Exchange("jobs", delivery_mode=1)])
def test_build_is_what_kombu_would_send(serializer: str, compression: str | None, exchange: Any) -> None:
    """Sent by kombu itself and received, a message is captured as the one that `build` makes."""
    headers = {"id": "a", "task": "b", "own": [1, None]}
    options: dict[str, Any] = {
        "exchange": exchange,
        "routing_key": "jobs",
        "serializer": serializer,
        "priority": 4,
        "correlation_id": "a",
        "reply_to": "somewhere",
        "expiration": 3.5,
    }
    queue = Queue("jobs", Exchange("jobs") if exchange else Exchange(""), routing_key="jobs")
    with Connection("memory://") as connection, connection.Producer() as producer:
        built = StoredMessage.build(
            producer, ([1], {"x": "ü"}), headers=dict(headers), compression=compression, retry=True, **options
        )
        bound = queue(connection.default_channel)
        bound.declare()
        bound.purge()
        producer.publish(([1], {"x": "ü"}), headers=dict(headers), compression=compression, **options)
        received = bound.get(no_ack=True, accept=["json", "pickle"])
        assert received is not None
        assert StoredMessage.capture(received) == built


def test_build_raises_the_serialisers_own_error(app: Celery) -> None:
    with Connection("memory://") as connection, pytest.raises(EncodeError):
        StoredMessage.build(connection.Producer(), object(), headers={"id": "a", "task": "b"}, serializer="json")


def test_build_takes_text_that_is_serialised_already() -> None:
    with Connection("memory://") as connection:
        message = StoredMessage.build(
            connection.Producer(), "[]", content_type="application/json", headers={"id": "a", "task": "b"}
        )
    assert (message.body, message.content_encoding, message.exchange) == (b"[]", "utf-8", "")


def test_publish_sends_these_very_bytes(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(app)
    monkeypatch.setattr(app, "producer_or_acquire", lambda: recorder)
    body = b'{"spaces"  :   "kept"}'
    stored(body=body, properties={"priority": 3, "expiration": "2500"}).publish(app)
    ((sent, options),) = recorder.published
    assert sent == body
    assert options["expiration"] == 2.5
    assert {name: options[name] for name in ("content_type", "content_encoding", "exchange", "routing_key")} == {
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "exchange": "",
        "routing_key": "celery",
    }
    assert options["retry"] == app.conf.task_publish_retry


def test_publish_to_a_queue_goes_straight_to_it(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    """A topic exchange would hand the message to others too."""
    recorder = Recorder(app)
    monkeypatch.setattr(app, "producer_or_acquire", lambda: recorder)
    stored(exchange="topic", routing_key="a.b").publish(app, queue="jobs.wake")
    ((_, options),) = recorder.published
    assert (options["exchange"], options["routing_key"]) == ("", "jobs.wake")
    assert [queue.name for queue in options["declare"]] == ["jobs.wake"]


def test_a_message_survives_sending_over_a_transport() -> None:
    with Celery("unit", broker="memory://", set_as_current=False) as app:
        message = stored(body=b"\x80\x00raw", content_type="application/data", content_encoding="binary")
        message.publish(app, queue="transport")
        with app.connection_for_read() as connection:
            received = app.amqp.queues["transport"](connection.default_channel).get(no_ack=True)
        assert received is not None
        assert StoredMessage.capture(received) == StoredMessage(
            body=message.body,
            content_type=message.content_type,
            content_encoding=message.content_encoding,
            headers=message.headers,
            properties=message.properties,
            exchange="",
            routing_key="transport",
        )


def test_the_queue_behind_a_native_delay_is_found() -> None:
    delay = "0." * 20 + "1." * 8
    assert undelayed(f"{delay}heavy") == "heavy"
    assert undelayed("1.0.heavy") == "1.0.heavy"


def test_a_moment_without_a_zone_is_utc_as_celery_reads_it(app: Celery) -> None:
    app.conf.timezone = "Asia/Tokyo"
    soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
    naive = soon.replace(tzinfo=None)
    for moment in (soon, soon.isoformat(), naive, naive.isoformat()):
        assert seconds_until(moment, app) == pytest.approx(3600, abs=60)
    assert seconds_until(soon - datetime.timedelta(hours=2), app) == pytest.approx(-3600, abs=60)
