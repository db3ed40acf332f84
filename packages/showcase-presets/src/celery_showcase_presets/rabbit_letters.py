"""Dead letters in RabbitMQ: a dead letter exchange, and one queue behind it."""

from __future__ import annotations

import json
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from kombu import Connection, Exchange, Queue

from celery_toolkit_core.celery.messages import StoredMessage
from celery_toolkit_core.deadletters import DeadLetter
from celery_toolkit_core.errors import InvalidParameter

from .again import publish_again
from .errors import LettersInUse
from .redis_letters import readable_message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from celery import Celery
    from kombu.message import Message

    from .settings import ShowcaseSettings

#: Header in which the worker says what it knows of a task's end, as JSON.
LETTER = "showcase_letter"

#: The most of a traceback that fits beside the rest into the headers of a message (a frame of 128 KiB), in characters.
_MOST_TRACEBACK = 16_000

#: Seconds to wait for another command that has the letters in hand.
_PATIENCE = 10.0

#: Letters settled in one transaction.
_BATCH = 500

# AMQP's reply codes: somebody consumes alone; it exists with other arguments.
_EXCLUSIVE = 403
_OF_OTHER_SIZE = 406

# How RabbitMQ calls what made it put a message aside.
_REASONS = {"expired": "expired", "maxlen": "queue full", "delivery_limit": "delivered too often"}


class RabbitLetters:
    """The dead letters of an application whose broker is RabbitMQ.

    The queue gets what a worker gives up, with the error and the traceback in a header, and what the broker itself
    puts aside: rejected messages, and those above a queue's delivery limit. It is a classic queue: to look into a queue
    is to take its messages and to give them back, and quorum queues drop what was given back twenty times.

    A replay sends a message and removes its letter in one transaction of the channel, so that a killed command has done
    both or neither. One command has the letters in hand at a time; the others wait.

    Args:
        app: The application.
        settings: Name and size of the queue.
    """

    def __init__(self, app: Celery, settings: ShowcaseSettings) -> None:
        self._app = app
        self.queue = Queue(
            settings.dead_letters_queue,
            Exchange(settings.dead_letters_queue, type="fanout"),
            queue_arguments={
                "x-queue-type": "classic",
                "x-max-length": settings.dead_letters_most,
                "x-message-ttl": round(settings.dead_letters_keep * 1000),
            },
        )

    def prepare(self) -> None:
        """Declare the exchange and the queue; where they exist with other sizes, those stay."""
        with self._connection() as connection:
            errors: Any = connection.channel_errors
            try:
                self.queue(connection.default_channel).declare()
            except errors as error:
                if error.reply_code != _OF_OTHER_SIZE:
                    raise

    def gets_rejected(self, queue: str) -> bool:
        """Whether RabbitMQ itself moves what is rejected in this queue here."""
        found = self._app.amqp.queues.get(queue)
        arguments = (found.queue_arguments if found is not None else None) or {}
        return bool(arguments.get("x-dead-letter-exchange") == self.queue.exchange.name)

    def put(self, letter: DeadLetter) -> None:
        """Keep a letter."""
        details = {**letter.details, "traceback": letter.details.get("traceback", "")[-_MOST_TRACEBACK:]}
        note = json.dumps({"reason": letter.reason, "at": time.time(), "details": details})
        message = StoredMessage.from_bytes(letter.message).with_headers(**{LETTER: note})
        message.publish(self._app, queue=Queue(self.queue.name, no_declare=True))

    def __len__(self) -> int:
        """How many letters wait in the queue."""
        with self._connection() as connection:
            return self._count(connection)

    def __iter__(self) -> Iterator[DeadLetter]:
        """All letters, oldest first; of a task that has several, the youngest."""
        found: dict[str, DeadLetter] = {}
        with self._in_hand() as messages:
            for message in messages:
                letter = _letter(message)
                found.pop(letter.id, None)
                found[letter.id] = letter
        return iter([replace(letter, cursor=str(place)) for place, letter in enumerate(found.values())])

    def page(self, after: str = "", *, count: int = 100) -> list[DeadLetter]:
        """Up to `count` letters, oldest first, behind the one whose `cursor` is `after`."""
        start = int(after) + 1 if after else 0
        return list(self)[start : start + count]

    def find(self, task_id: str) -> DeadLetter | None:
        """The letter of a task."""
        return next((letter for letter in self if letter.id == task_id), None)

    def purge(self, ids: Iterable[str]) -> int:
        """Remove letters for good; how many there were."""
        wanted = set(ids)
        return len(self._settle(lambda letter: letter.id in wanted, None))

    def purge_older(self, age: float = 0.0) -> int:
        """Remove all letters older than `age` seconds; how many there were."""
        until = time.time() - age
        return len(self._settle(lambda letter: letter.at <= until or not age, None))

    def replay(self, app: Celery, ids: Iterable[str]) -> list[str]:
        """Send the messages of these letters again, each to the queue that it died in; see `dead_letters.replay`."""
        wanted = set(ids)
        return self._settle(lambda letter: letter.id in wanted, self._send)

    def _settle(
        self, is_wanted: Callable[[DeadLetter], bool], send: Callable[[Any, DeadLetter], bool] | None
    ) -> list[str]:
        done: dict[str, None] = {}
        with self._in_hand() as messages:
            for number, message in enumerate(messages, 1):
                letter = _letter(message)
                # A second copy of a letter goes with the first.
                if is_wanted(letter) and (letter.id in done or send is None or send(message.channel, letter)):
                    message.ack()
                    done[letter.id] = None
                if number % _BATCH == 0:
                    message.channel.tx_commit()
        return list(done)

    def _send(self, channel: Any, letter: DeadLetter) -> bool:
        message = readable_message(letter)
        if message is None:
            return False
        name = letter.details["queue"]
        # Declared on a channel of its own: an error closes the channel that it comes from.
        if name not in self._declared:
            with channel.connection.client.channel() as other:
                self._app.amqp.queues[name](other).declare()
            self._declared.add(name)
        prepared = channel.prepare_message(
            message.body,
            message.properties.get("priority"),
            message.content_type,
            message.content_encoding,
            message.headers,
            {name: value for name, value in message.properties.items() if name != "priority"},
        )
        return publish_again(
            self._app, message, partial(channel.basic_publish, prepared, exchange="", routing_key=name)
        )

    @contextmanager
    def _in_hand(self) -> Iterator[Iterator[Any]]:
        """All messages of the queue, one after the other; what is not acknowledged goes back to its place."""
        self._declared: set[str] = set()
        with self._connection() as connection:
            arrived: deque[Message] = deque()
            channel, number = self._consume(connection, arrived)
            yield _each(connection, arrived, number)
            channel.tx_commit()

    def _consume(self, connection: Any, arrived: deque[Message]) -> tuple[Any, int]:
        """A channel with a transaction and the only consumer of the queue on it, and how much that will get."""
        end = time.monotonic() + _PATIENCE
        while True:
            channel = connection.channel()
            channel.tx_select()
            number = self._count(connection)
            try:
                channel.basic_consume(
                    self.queue.name,
                    callback=lambda raw, channel=channel: arrived.append(channel.message_to_python(raw)),
                    exclusive=True,
                )
            except connection.channel_errors as error:
                if error.reply_code != _EXCLUSIVE:
                    raise
                if time.monotonic() > end:
                    message = "another command has the dead letters in hand; try again in a moment"
                    raise LettersInUse(message, queue=self.queue.name) from error
                time.sleep(0.1)
            else:
                return channel, number

    def _count(self, connection: Any) -> int:
        try:
            with connection.channel() as channel:
                declared: Any = self.queue(channel).queue_declare(passive=True)
                return int(declared.message_count)
        except connection.channel_errors:
            self.prepare()
            return 0

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        with self._app.connection_for_write() as connection:
            # A channel has transactions or confirmations, not both.
            connection.transport_options = {
                name: value for name, value in (connection.transport_options or {}).items() if name != "confirm_publish"
            }
            library_errors: Any = connection._reraise_as_library_errors
            with library_errors():
                connection.ensure_connection(max_retries=1)
                yield connection


def _each(connection: Any, arrived: deque[Message], number: int) -> Iterator[Any]:
    for _ in range(number):
        while not arrived:
            try:
                connection.drain_events(timeout=_PATIENCE)
            except TimeoutError:
                return  # fewer than a moment ago: some have expired
        yield arrived.popleft()


def _letter(message: Any) -> DeadLetter:
    try:
        stored = StoredMessage.capture(message)
    except InvalidParameter:
        return DeadLetter(id="", task="", reason="no message of Celery's")
    note = stored.headers.get(LETTER)
    if note is not None:
        told = json.loads(note)
        reason, at, details = told["reason"], told["at"], told["details"]
    else:
        reason, at, details = _told_by_the_broker(stored.headers)
    return DeadLetter(
        id=stored.task_id,
        task=stored.task_name,
        reason=reason,
        message=stored.to_bytes(),
        details=details,
        at=at,
    )


def _told_by_the_broker(headers: dict[str, Any]) -> tuple[str, float, dict[str, str]]:
    death: dict[str, Any] = next(iter(headers.get("x-death") or ()), {})
    at = death.get("time")
    details = {
        "args": str(headers.get("argsrepr", "")),
        "kwargs": str(headers.get("kwargsrepr", "")),
        "retries": str(headers.get("retries", 0)),
        "queue": str(death.get("queue", "")),
        "origin": str(headers.get("origin", "")),
    }
    reason = str(death.get("reason", ""))
    return _REASONS.get(reason, reason), at.timestamp() if isinstance(at, datetime) else 0.0, details
