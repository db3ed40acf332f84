"""The producer that puts a task into its client's backlog and publishes a ticket in its place."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from celery_toolkit_core.celery.messages import StoredMessage, seconds_until
from celery_toolkit_core.celery.patience import outlast
from celery_toolkit_core.log import event

from .application import Address
from .backlog import client_of
from .entries import Submission
from .errors import BacklogFull, ClientDraining, PayloadTooLarge
from .results import tell_revoked
from .signals import task_enqueued

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .application import Ranch
    from .entries import Admission
    from .options import OnFull

logger = logging.getLogger(__name__)

#: AMQP's highest priority; there the highest number goes first.
_AMQP_HIGHEST = 255
#: Seconds between two tries of a caller that waits for room.
_BLOCK_LOOK = 0.1


@dataclass(frozen=True, slots=True)
class Call:
    """What one call says about fairness.

    Attributes:
        key: The client.
        cost: What its turn costs.
        weight: Weight to keep for the client, if the call gives one.
        weighed: The task has a weight function.
        limit: Most tasks of the client that may wait.
        on_full: What becomes of one more.
        admission: See `Submission`.
    """

    key: str
    cost: float | str = 1.0
    weight: float | None = None
    weighed: bool = False
    limit: int | None = None
    on_full: OnFull = "raise"
    admission: Admission = "new"


class Dropped(Exception):  # no error: it never leaves `RanchTask.apply_async`
    """The call was dropped because its client's backlog is full; its result says so."""

    def __init__(self, task_id: str) -> None:
        super().__init__(task_id)
        self.task_id = task_id


class BacklogProducer:
    """Stands in for kombu's producer while Celery sends one task.

    Celery builds the message: id, headers, body, route. This producer keeps that message in the backlog and publishes a
    ticket to the same queue. What is no task message (events) goes to the real producer, as does everything else that
    is asked of it.

    Args:
        producer: The real one.
        ranch: The application's ranch.
        call: Whose task it is.
        options: Of ``apply_async``.
    """

    def __init__(self, producer: Any, ranch: Ranch, call: Call, options: Mapping[str, Any]) -> None:
        self._producer = producer
        self._ranch = ranch
        self._call = call
        self._options = options
        self._listen: Callable[[], object] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)

    def listen_later(self, listen: Callable[[], object]) -> None:
        """Call `listen` when the backlog has the task; see `celery_ranch.listening`."""
        self._listen = listen

    def publish(self, body: Any, **options: Any) -> Any:
        """Keep the message, publish its ticket.

        Raises:
            PayloadTooLarge: The message is too large.
            BacklogFull: The client has its limit waiting, or is drained.
            Dropped: Likewise, and the task is to be dropped then.
            RedisUnavailable: Our Redis is away.
            kombu.exceptions.EncodeError: The arguments cannot be serialised.
        """
        if "task" not in (options.get("headers") or {}):
            return self._producer.publish(body, **options)
        message = StoredMessage.build(self._producer, body, **options)
        address = self._enqueue(message)
        if self._listen is not None:
            self._listen_quietly(self._listen)
        if address is not None:
            try:
                self._ranch.publish_ticket(Address.from_bytes(address), self._producer, **_how_to_send(options))
            except Exception as error:  # noqa: BLE001  # kombu raises anything when a connection ends under its feet
                # The backlog has the task: workers issue what is missing, so the caller need not know.
                event(logger, logging.WARNING, "ticket_not_published", error=type(error).__name__)
        return None

    def _listen_quietly(self, listen: Callable[[], object]) -> None:
        try:
            listen()
        except Exception as error:  # noqa: BLE001  # the task is sent; whoever waits for its result listens anew
            event(logger, logging.WARNING, "result_not_listened_for", error=repr(error))

    def _enqueue(self, message: StoredMessage) -> bytes | None:
        driver_type = self._producer.connection.transport.driver_type
        # One id for all tries: one whose answer was lost is not enqueued twice.
        send = partial(enqueue, self._ranch, message, self._call, driver_type, uuid4().hex)
        end = time.monotonic() + self._ranch.settings.block_timeout
        while True:
            try:
                return outlast(self._options, send)
            except BacklogFull as full:
                if self._call.on_full == "drop":
                    event(logger, logging.WARNING, "task_dropped", task_id=message.task_id, lru_key=self._call.key)
                    tell_revoked(self._ranch.app, message.to_bytes(), str(full))
                    raise Dropped(message.task_id) from None
                if self._call.on_full == "raise" or time.monotonic() >= end:
                    raise
                time.sleep(_BLOCK_LOOK)


def enqueue(
    ranch: Ranch, message: StoredMessage, call: Call, driver_type: str, entry: str | None = None
) -> bytes | None:
    """Put one message into the backlog.

    Args:
        ranch: The application's ranch.
        message: The message.
        call: Whose it is.
        driver_type: Of the broker's transport; says how to read priorities.
        entry: Its id in the backlog, if a repetition must be recognised.

    Returns:
        Where a ticket is due now; None for a task with an eta in the future.

    Raises:
        PayloadTooLarge: The message is too large.
        BacklogFull: The client has its limit waiting, or is drained (`ClientDraining`).
        RedisUnavailable: Our Redis is away.
        TooFewReplicas: Fewer replicas than ``ranch_min_replicas`` have it.
    """
    eta = message.headers.get("eta")
    # The caller's clock made it, so only the difference is used.
    delay = max(0.0, seconds_until(eta, ranch.app)) if eta else 0.0
    # It waits here, not in a worker's memory, where it would raise the prefetch count.
    data = message.with_headers(eta=None).to_bytes() if eta else message.to_bytes()
    # What a broker has carried to a worker already must not go round for ever.
    if len(data) > ranch.settings.max_payload and call.admission != "back":
        raise PayloadTooLarge(
            f"the message of task {message.task_name} has {len(data)} bytes, "
            f"ranch_max_payload allows {ranch.settings.max_payload}; store the data elsewhere and send its name",
            task=message.task_name,
            size=len(data),
            limit=ranch.settings.max_payload,
        )
    address = Address.of(message, ranch.app)
    enqueued = ranch.backlog.enqueue(
        Submission(
            message=data,
            queue=address.queue,
            address=address.to_bytes(),
            client=client_of(call.key),
            label=call.key,
            cost=call.cost,
            rank=_rank(message.properties.get("priority"), driver_type),
            delay=delay,
            task_id=message.task_id,
            name=message.task_name,
            weighed=call.weighed,
            weight=call.weight,
            limit=call.limit,
            admission=call.admission,
        ),
        entry,
        # What was admitted once is in the backlog, or at the broker, until this has been taken.
        replicas=ranch.settings.min_replicas if call.admission in ("new", "inside") else 0,
    )
    waiting = enqueued.waiting
    if enqueued.state == "full":
        raise BacklogFull(
            f"client {call.key!r} has {waiting} tasks waiting, as many as its limit allows; try again later",
            lru_key=call.key,
            waiting=waiting,
        )
    if enqueued.state == "draining":
        raise ClientDraining(
            f"client {call.key!r} is being drained and takes no new tasks until it is resumed",
            lru_key=call.key,
            waiting=waiting,
        )
    task_enqueued.send(sender=message.task_name, task_id=message.task_id, lru_key=call.key)
    return None if enqueued.state == "scheduled" else enqueued.address


def _rank(priority: Any, driver_type: str) -> int:
    """The place inside the client: 0 first, whichever end the broker calls high."""
    value = min(max(int(priority or 0), 0), _AMQP_HIGHEST)
    return _AMQP_HIGHEST - value if driver_type == "amqp" else value


def _how_to_send(options: dict[str, Any]) -> dict[str, Any]:
    names = (
        "retry",
        "retry_policy",
        "declare",
        "delivery_mode",
        "timeout",
        "confirm_timeout",
        "mandatory",
        "immediate",
    )
    return {name: options[name] for name in names if options.get(name) is not None}
