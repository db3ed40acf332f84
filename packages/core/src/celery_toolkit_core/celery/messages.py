"""Celery messages kept outside the broker: captured, stored, sent again, always as the bytes that Celery made."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from celery.utils.time import maybe_iso8601, maybe_make_aware
from kombu.entity import Exchange, Queue, maybe_delivery_mode
from kombu.message import Message
from kombu.serialization import dumps as serialise
from kombu.utils import json

from ..errors import InvalidParameter, Quarantined

if TYPE_CHECKING:
    from celery import Celery
    from kombu.messaging import Producer

#: Opens every stored message. The last character is the version of the envelope; version N reads N - 1.
MAGIC = b"ctm1"

# In front of the routing key of what Celery's native delayed delivery carries: 28 binary digits, one per level.
_DELAY = re.compile(r"^(?:[01]\.){28}")

# After the magic: the lengths in bytes of the head (JSON) and of the body.
_LENGTHS = struct.Struct(">II")

# What a transport adds to the properties of a message that it delivers. It belongs to that one delivery.
# `user_id` is left out because RabbitMQ refuses a message that names another user than the publishing connection's.
_OF_THE_TRANSPORT = frozenset(
    {
        "application_headers",
        "body_encoding",
        "content_encoding",
        "content_type",
        "delivery_info",
        "delivery_tag",
        "user_id",
    }
)


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A Celery message (protocol 2) as it would be on the wire, uncompressed.

    Attributes:
        body: The serialised body, never decoded and encoded again.
        content_type: What the body is serialised with, such as ``application/json``.
        content_encoding: Its character set, or ``binary``.
        headers: Celery's and the user's headers.
        properties: correlation_id, reply_to, priority, delivery_mode and whatever else the sender set.
        exchange: The exchange it was sent to; empty for the broker's default one.
        routing_key: Its routing key; the queue's name with the default exchange.

    Raises:
        InvalidParameter: The message has no task name or id in its headers, as in message protocol 1.
    """

    body: bytes
    content_type: str
    content_encoding: str
    headers: dict[str, Any]
    properties: dict[str, Any]
    exchange: str
    routing_key: str

    def __post_init__(self) -> None:
        if "id" not in self.headers or "task" not in self.headers:
            raise InvalidParameter("task_protocol", 1, "only messages of Celery's protocol 2 can be kept; set it to 2")

    @property
    def task_id(self) -> str:
        """The id of the task that the message starts."""
        return str(self.headers["id"])

    @property
    def task_name(self) -> str:
        """The registered name of the task that the message starts."""
        return str(self.headers["task"])

    @classmethod
    def capture(cls, message: Message) -> StoredMessage:
        """The message that a worker has received; meant for a Strategy, where the body is still there.

        kombu has decompressed the body by then, so the header that names the compression is dropped.
        """
        where = message.delivery_info or {}
        return cls(
            body=_bytes(message.body, message.content_encoding),
            content_type=message.content_type or "application/data",
            content_encoding=message.content_encoding or "binary",
            headers={name: value for name, value in message.headers.items() if name != "compression"},
            properties=_kept(message.properties, message.headers),
            exchange=where.get("exchange") or "",
            routing_key=where.get("routing_key") or "",
        )

    @classmethod
    def build(
        cls,
        producer: Producer,
        body: Any,
        *,
        exchange: Exchange | str | None = None,
        routing_key: str | None = None,
        serializer: str | None = None,
        content_type: str | None = None,
        content_encoding: str | None = None,
        headers: dict[str, Any] | None = None,
        delivery_mode: int | str | None = None,
        priority: int = 0,
        expiration: float | None = None,
        **options: Any,
    ) -> StoredMessage:
        """The message that ``producer.publish(body, ...)`` would send, with the same arguments.

        Options that tell *how* to send rather than what (``compression``, ``retry``, ``declare``, ``timeout``, ...) are
        accepted and left out.

        Raises:
            kombu.exceptions.EncodeError: The body cannot be serialised; the same error as ``publish`` raises.
            InvalidParameter: The message is of Celery's protocol 1.
        """
        if not content_type:
            content_type, content_encoding, body = serialise(body, serializer=serializer or producer.serializer)
        elif not content_encoding:
            content_encoding = "utf-8" if isinstance(body, str) else "binary"
        # A mere name inherits the delivery mode of the producer's exchange.
        own = producer.exchange or Exchange("")
        target = exchange or own
        default_mode = target.delivery_mode if isinstance(target, Exchange) else own.delivery_mode
        properties = {name: value for name, value in options.items() if name not in _HOW_TO_SEND}
        properties.update(delivery_mode=maybe_delivery_mode(delivery_mode or default_mode), priority=priority or 0)
        if expiration is not None:
            properties["expiration"] = str(int(expiration * 1000))
        if isinstance(properties.get("reply_to"), Queue):
            properties["reply_to"] = properties["reply_to"].name
        return cls(
            body=_bytes(body, content_encoding),
            content_type=content_type,
            content_encoding=content_encoding or "binary",
            headers=dict(headers or {}),
            properties=_kept(properties, headers or {}),
            exchange=(target.name or "") if isinstance(target, Exchange) else target,
            routing_key=producer.routing_key if routing_key is None else routing_key,
        )

    def to_bytes(self) -> bytes:
        """The message in its versioned envelope, for Redis."""
        fields = {field: getattr(self, field) for field in _HEAD}
        head = json.dumps(fields).encode()
        return b"".join((MAGIC, _LENGTHS.pack(len(head), len(self.body)), head, self.body))

    @classmethod
    def from_bytes(cls, data: bytes) -> StoredMessage:
        """The message that `to_bytes` wrote.

        Raises:
            Quarantined: The bytes are no stored message of a version that this code reads.
        """
        start = len(MAGIC) + _LENGTHS.size
        if data[: len(MAGIC) - 1] != MAGIC[:-1] or len(data) < start:
            raise _quarantined("they do not begin like a stored message")
        if data[: len(MAGIC)] != MAGIC:
            raise _quarantined("they are of a version that this release does not know; upgrade the workers first")
        head_length, body_length = _LENGTHS.unpack_from(data, len(MAGIC))
        if len(data) != start + head_length + body_length:
            raise _quarantined("their length is not the one that they state")
        try:
            head = json.loads(data[start : start + head_length])
            message = cls(body=bytes(data[start + head_length :]), **{field: head[field] for field in _HEAD})
        except Exception as error:  # kombu's JSON decoders raise anything on forged values
            raise _quarantined(f"their head cannot be read ({type(error).__name__})") from error
        if not isinstance(message.headers, dict) or not isinstance(message.properties, dict):
            raise _quarantined("their headers or properties are no mapping")
        return message

    def with_headers(self, **changes: Any) -> StoredMessage:
        """The same message with other headers; ``None`` removes one."""
        headers = {**self.headers, **changes}
        for name, value in changes.items():
            if value is None:
                del headers[name]
        return replace(self, headers=headers)

    def rebuild(self, carrier: Message) -> Message:
        """A kombu message like this one, as though it had been received in the place of `carrier`.

        It has the carrier's channel and delivery tag, and to acknowledge or reject it is to do so to the carrier.
        """
        return _Carried(carrier, self)

    def publish(self, app: Celery, *, queue: str | Queue | None = None) -> None:
        """Send these very bytes, with Celery's own policy for retrying a publish.

        Args:
            app: The Celery application, for its broker.
            queue: Where to; sent straight to that queue, whatever its exchange. Without it, the original exchange and
                routing key are used.

        Raises:
            kombu.exceptions.OperationalError: The broker did not take it.
        """
        options: dict[str, Any] = {"exchange": self.exchange, "routing_key": self.routing_key}
        if queue is not None:
            entity = app.amqp.queues[queue] if isinstance(queue, str) else queue
            options = {"exchange": "", "routing_key": entity.name, "declare": [entity]}
        properties = dict(self.properties)
        if "expiration" in properties:
            properties["expiration"] = int(properties["expiration"]) / 1000  # kept as the wire's ms, taken as s
        with app.producer_or_acquire() as producer, producer.connection._reraise_as_library_errors():
            producer.publish(
                self.body,
                content_type=self.content_type,
                content_encoding=self.content_encoding,
                headers=dict(self.headers),
                retry=app.conf.task_publish_retry,
                retry_policy=dict(app.conf.task_publish_retry_policy),
                **options,
                **properties,
            )


def undelayed(routing_key: str) -> str:
    """The routing key that a message is meant to have when Celery's native delayed delivery has brought it."""
    return _DELAY.sub("", routing_key)


def seconds_until(moment: datetime | str, app: Celery) -> float:
    """Seconds until an ``eta`` or ``expires``, in a call's options or a message's headers, by this machine's clock.

    Below 0 when it has passed.
    """
    due: datetime = maybe_make_aware(maybe_iso8601(moment), app.timezone)  # type: ignore[arg-type]  # never None here
    return (due - datetime.now(timezone.utc)).total_seconds()


class _Carried(Message):
    """A message that rides on another one's delivery."""

    def __init__(self, carrier: Message, stored: StoredMessage) -> None:
        where = {**(carrier.delivery_info or {}), "exchange": stored.exchange, "routing_key": stored.routing_key}
        super().__init__(
            body=stored.body,  # type: ignore[arg-type]  # the stubs know bodies as str only
            delivery_tag=carrier.delivery_tag,
            content_type=stored.content_type,
            content_encoding=stored.content_encoding,
            delivery_info=where,
            properties=dict(stored.properties),
            headers=dict(stored.headers),
            accept=carrier.accept,
            channel=carrier.channel,
        )
        self.carrier = carrier

    def ack(self, multiple: bool = False) -> None:
        self.carrier.ack(multiple=multiple)

    def reject(self, requeue: bool = False) -> None:
        self.carrier.reject(requeue=requeue)

    def requeue(self) -> None:
        self.carrier.requeue()

    @property
    def acknowledged(self) -> bool:
        return self.carrier.acknowledged


_HEAD = ("content_type", "content_encoding", "headers", "properties", "exchange", "routing_key")

_HOW_TO_SEND = frozenset(
    {"compression", "confirm_timeout", "declare", "immediate", "mandatory", "retry", "retry_policy", "timeout"}
)


def _kept(properties: dict[str, Any], headers: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in properties.items() if name not in _OF_THE_TRANSPORT}
    if headers.get("expires"):
        # The broker's own clock would begin anew at each publish, and end the message without a word to the result
        # backend; the header says the same to the worker.
        kept.pop("expiration", None)
    return kept


def _bytes(body: Any, encoding: str | None) -> bytes:
    if isinstance(body, str):
        return body.encode("utf-8" if encoding in (None, "binary") else encoding)
    return bytes(body or b"")


def _quarantined(reason: str) -> Quarantined:
    return Quarantined(f"stored bytes were put aside: {reason}", reason=reason)
