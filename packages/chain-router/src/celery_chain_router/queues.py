"""What partition mode asks of a broker: to start and stop consuming, and to bring messages back in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from .errors import BrokerNotSupported

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from .lane import Entry
    from .partitions import Partitions


class PartitionQueues(Protocol):
    """The partitions' queues on the broker. All but `adopt` and `backlog` is for the consumer's own thread."""

    def attach(self, consumer: Any) -> None:
        """Meet the consumer, at its start and after each reconnect."""

    def consume(self, queues: Sequence[str]) -> None:
        """Begin to consume."""

    def cancel(self, queues: Sequence[str]) -> None:
        """Consume no more; messages that are on their way still come, see `is_settled`."""

    def is_settled(self) -> bool:
        """Whether everything that was on its way at the last `cancel` has come."""

    def drain(self) -> None:
        """Wait until that is so, when the event loop runs no more."""

    def give_back(self, entries: Sequence[Entry]) -> None:
        """Bring messages of this worker back to the head of their queues; in the order given, the first in front."""

    def adopt(self, fences: Mapping[int, int], mine: Collection[Any]) -> Mapping[int, int]:
        """Bring back what former owners of partitions had unacknowledged: partition -> number of messages.

        Args:
            fences: Partition -> fence of the new owner.
            mine: Delivery tags that this process has in hand itself.
        """

    def disconnect(self, entries: Iterable[Entry]) -> None:
        """The connection is lost: these messages of it are not to be brought back by kombu."""

    def forget(self, entry: Entry) -> None:
        """Acknowledge a message that was received over a connection that is gone."""

    def backlog(self, queues: Sequence[str]) -> tuple[list[int], list[int] | None]:
        """Waiting and, where the broker tells, unacknowledged messages of each queue."""

    def close(self) -> None:
        """Close the connection for all this."""


def queues_of(app: Any, partitions: Partitions, may_fetch: Callable[[], bool]) -> PartitionQueues:
    """The partitions' queues on an application's broker.

    Args:
        app: The application.
        partitions: The queues.
        may_fetch: Tells whether this process certainly holds its partitions.

    Raises:
        BrokerNotSupported: It is neither a Redis nor RabbitMQ.
    """
    from .queues_amqp import AmqpQueues
    from .queues_redis import RedisQueues

    with app.connection_for_read() as connection:
        driver = str(connection.transport.driver_type)
    if driver == "redis":
        return RedisQueues(app, partitions, may_fetch)
    if driver == "amqp":
        return AmqpQueues(app)
    raise BrokerNotSupported(driver)
