"""The partitions' queues on RabbitMQ, which itself requeues what a dead worker had, each message at its old place."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .entry import Entry
    from .lane import Lane
    from .partitions import Partitions

logger = logging.getLogger(__name__)


class AmqpQueues:
    """See `PartitionQueues`.

    Args:
        app: The application.
        partitions: The queues.
    """

    #: Without its connection the broker takes all back, bodies that run or not.
    outlives_connection: ClassVar[bool] = False
    is_bound_to_consumer: ClassVar[bool] = True

    def __init__(self, app: Any, partitions: Partitions) -> None:
        self._app = app
        self._partitions = partitions
        self._consumer: Any = None

    def attach(self, consumer: Any) -> None:
        """Meet the consumer; what it took up again by itself after a reconnect is dropped."""
        self._consumer = consumer
        self.cancel(range(len(self._partitions)))

    def consume(self, numbers: Sequence[int], endings: Sequence[str]) -> None:
        """Add the queues to the consumer's.

        Not by Celery's ``add_task_queue``: that waits for the broker's answer, and writes a line, for each queue.
        """
        queues = self._app.amqp.queues
        for number in numbers:
            for ending in ("", *endings):
                name = f"{self._partitions.queue(number)}{ending}"
                queue = queues[name] if name in queues or queues.create_missing else queues.new_missing(name)
                self._consumer.task_consumer.add_queue(queues.select_add(queue))
        self._consumer.task_consumer.consume()

    def cancel(self, numbers: Iterable[int]) -> None:
        """Take them out again; messages on their way come before the broker's answer, for which this waits."""
        dropped = frozenset(numbers)
        queues = self._app.amqp.queues
        for name in tuple(queues.consume_from):
            if self._partitions.number(name) in dropped:
                queues.deselect(name)
                if self._consumer.task_consumer is not None:
                    self._consumer.task_consumer.cancel_by_queue(name)

    def poll(self, lane: Lane) -> int:
        """Nothing: messages come by themselves."""
        return 0

    def give_back(self, entries: Sequence[Entry]) -> None:
        """Reject them with requeue; the broker knows each one's place."""
        for entry in entries:
            message = entry.delivery.message
            if not (message.acknowledged or entry.is_cut_off):
                message.reject_log_error(logger, self._consumer.connection_errors, requeue=True)

    @property
    def is_settled(self) -> bool:
        """Always: answers go the way that messages come."""
        return True

    def adopt(self, fences: Mapping[int, int], lane: Lane) -> int:
        """Nothing: the broker did so when it lost the connection."""
        return 0

    def backlog(self) -> tuple[list[int], list[int] | None]:
        """Waiting messages; the broker tells of no queue how many are unacknowledged."""
        waiting = []
        with self._app.connection_for_read() as connection:
            for name in self._partitions:
                with connection.channel() as channel:  # a failed look closes its channel
                    try:
                        waiting.append(self._app.amqp.queues[name](channel).queue_declare(passive=True).message_count)
                    except connection.channel_errors:  # nobody has declared it yet
                        waiting.append(0)
        return waiting, None

    def close(self) -> None:
        """Nothing of our own is open."""
