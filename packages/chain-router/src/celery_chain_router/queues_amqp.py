"""The partitions' queues on RabbitMQ, which itself requeues what a dead worker had, each message at its old place."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from .consuming import drop, take_up

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from .lane import Entry

logger = logging.getLogger(__name__)


class AmqpQueues:
    """See `PartitionQueues`.

    Args:
        app: The application.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._consumer: Any = None

    def attach(self, consumer: Any) -> None:
        """Meet the consumer."""
        self._consumer = consumer

    def consume(self, queues: Sequence[str]) -> None:
        """Begin to consume."""
        take_up(self._consumer, queues)

    def cancel(self, queues: Sequence[str]) -> None:
        """Consume no more; what was on its way comes before the broker's answer, for which this waits."""
        drop(self._consumer, queues)

    def is_settled(self) -> bool:
        """See `cancel`."""
        return True

    def drain(self) -> None:
        """See `cancel`."""

    def give_back(self, entries: Sequence[Entry]) -> None:
        """Reject them with requeue; the broker knows each one's place."""
        for entry in reversed(entries):
            message = entry.delivery.message
            if not message.acknowledged:
                message.reject_log_error(logger, self._consumer.connection_errors, requeue=True)

    def adopt(self, fences: Mapping[int, int], mine: Collection[Any]) -> Mapping[int, int]:
        """Nothing: the broker did so when it lost the connection."""
        return {}

    def disconnect(self, entries: Iterable[Entry]) -> None:
        """Nothing: the broker requeues all of them, those included whose bodies run on."""

    def forget(self, entry: Entry) -> None:
        """Nothing: the broker delivers it again, and it waits in the lane until the body that runs has ended."""

    def backlog(self, queues: Sequence[str]) -> tuple[list[int], list[int] | None]:
        """Waiting messages; the broker tells of no queue how many are unacknowledged."""
        waiting = []
        with self._app.connection_for_read() as connection:
            for name in queues:
                with connection.channel() as channel:  # a failed look closes its channel
                    try:
                        waiting.append(self._app.amqp.queues[name](channel).queue_declare(passive=True).message_count)
                    except connection.channel_errors:  # nobody has declared it yet
                        waiting.append(0)
        return waiting, None

    def close(self) -> None:
        """Nothing is open."""
