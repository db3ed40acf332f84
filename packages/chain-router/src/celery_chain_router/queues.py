"""What partition mode asks of a broker: to start and stop consuming, and to bring messages back in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from .errors import BrokerNotSupported

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .entry import Entry
    from .lane import Lane
    from .partitions import Partitions
    from .tenure import Tenure


class PartitionQueues(Protocol):
    """The partitions' queues on the broker, as one worker sees them."""

    #: Whether messages in hand, and their acknowledgements, survive a loss of the consumer's connection.
    outlives_connection: ClassVar[bool]

    #: Whether `consume`, `cancel` and `poll` must run in the consumer's own thread.
    is_bound_to_consumer: ClassVar[bool]

    def attach(self, consumer: Any) -> None:
        """Meet the consumer, at its start and after each reconnect; nothing is consumed yet."""

    def consume(self, numbers: Sequence[int], endings: Sequence[str]) -> None:
        """Consume these partitions' queues, and beside each the further ones with these endings."""

    def cancel(self, numbers: Sequence[int]) -> None:
        """Consume them no more; when this returns, no message of theirs is on its way."""

    def poll(self, lane: Lane) -> int:
        """Look for messages, where the broker does not bring them by itself; how many came."""

    def give_back(self, entries: Sequence[Entry]) -> None:
        """Bring messages of this worker back to the head of their queues; in the order given, the first in front."""

    @property
    def is_settled(self) -> bool:
        """Whether the broker has been told how everything ended."""

    def adopt(self, fences: Mapping[int, int], lane: Lane) -> int:
        """Bring back what former owners of partitions had unacknowledged: how many messages.

        Args:
            fences: Partition -> fence of the new owner.
            lane: What this process has in hand itself.
        """

    def backlog(self) -> tuple[list[int], list[int] | None]:
        """For each partition: how many messages wait and, where the broker tells, how many are unacknowledged."""

    def close(self) -> None:
        """Close the connections for all this."""


def queues_of(app: Any, partitions: Partitions, tenure: Tenure | None = None) -> PartitionQueues:
    """The partitions' queues on an application's broker.

    Args:
        app: The application.
        partitions: The queues.
        tenure: What this process holds; not needed for `backlog`.

    Raises:
        BrokerNotSupported: It is neither a Redis nor RabbitMQ.
    """
    from .queues_amqp import AmqpQueues
    from .queues_redis import RedisQueues

    with app.connection_for_read() as connection:
        driver = str(connection.transport.driver_type)
    if driver == "redis":
        return RedisQueues(app, partitions, tenure)
    if driver == "amqp":
        return AmqpQueues(app, partitions)
    raise BrokerNotSupported(driver)
