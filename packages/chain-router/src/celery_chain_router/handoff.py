"""The hand-off as the consumer's own thread does it: take up queues, drop them, empty this worker's hands of them.

Other threads only leave wishes here, and read what has come of them.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any

from celery_toolkit_core.log import event

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .lane import Lane
    from .partitions import Partitions
    from .queues import PartitionQueues

logger = logging.getLogger(__name__)

#: Seconds that the broker is given to hear how a body ended; then its message goes back to the queue.
ANSWER = 5.0


class HandOff:
    """Takes up and drops partitions.

    Args:
        partitions: Their queues.
        lane: What is in hand of them.
        queues: The queues on the broker.
    """

    def __init__(self, partitions: Partitions, lane: Lane, queues: PartitionQueues) -> None:
        self._partitions = partitions
        self._lane = lane
        self._queues = queues
        self._consumer: Any = None
        #: Partitions whose queues are consumed.
        self.consumed: frozenset[int] = frozenset()
        #: Partitions of which nothing is in hand any more.
        self.emptied: frozenset[int] = frozenset()
        # What others want: (partition, whether it is to be consumed).
        self._wishes: deque[tuple[int, bool]] = deque()
        self._leaving: set[int] = set()
        #: Whether the last tick has found something to do.
        self.is_in_flow = False
        # Endings of the further queues that other packages consume beside each queue.
        self._endings: set[str] = set()

    @property
    def is_busy(self) -> bool:
        """Whether there is something to do."""
        return bool(self._wishes or self._leaving)

    def enter(self, numbers: Iterable[int]) -> None:
        """Wish for partitions to be consumed."""
        self._wishes.extend((number, True) for number in sorted(numbers))

    def leave(self, numbers: Iterable[int]) -> None:
        """Wish for partitions to be given up; they are in `emptied` when nothing of them is in hand."""
        self._wishes.extend((number, False) for number in sorted(numbers))

    def forget(self, number: int) -> None:
        """Its being emptied has been noticed."""
        self.emptied -= {number}

    def attach(self, consumer: Any) -> None:
        """Meet the consumer, at its start and after each reconnect; nothing is consumed yet."""
        self._consumer = consumer
        self._lane.consumer = consumer
        self._queues.attach(consumer)
        # Celery has dropped what its pool had not begun.
        self._queues.give_back(self._lane.take_back())
        self._wishes.extendleft((number, True) for number in self.consumed)
        self.consumed = frozenset()

    def disconnect(self) -> None:
        """The consumer's connection to the broker is lost."""
        if not self._queues.outlives_connection:
            self._lane.cut_off()

    def add_companion(self, queue: str) -> None:
        """Another package has a queue beside that of a partition, and surely beside the others' as well."""
        number = self._partitions.number(queue)
        ending = queue.removeprefix(self._partitions.queue(number or 0))
        if ending not in self._endings:
            self._endings.add(ending)
            self._consume(self.consumed)

    def tick(self) -> None:
        """Do what is to be done; often, and quick when there is nothing."""
        if self._wishes:
            self._take_wishes()
        if self._leaving or self._lane.partitions_in_hand() - self.consumed:
            self._empty()
        self._queues.give_back(self._lane.take_unanswered(ANSWER))
        has_more = self._lane.resume()
        self.is_in_flow = self._queues.poll(self._lane) > 0 or has_more

    def close(self) -> None:
        """A shutdown begins: consume no more, and give back all that has not started; what runs goes on."""
        self._lane.close()
        self._wishes.clear()
        self._queues.cancel(sorted(self.consumed))
        self._leaving |= self.consumed
        self.consumed = frozenset()
        self._empty()

    def finish(self) -> None:
        """The pool has ended: give back what is left."""
        self._queues.give_back(self._lane.take_all())
        self._queues.close()

    def _take_wishes(self) -> None:
        enter: set[int] = set()
        leave: set[int] = set()
        later = []
        while self._wishes:
            number, wanted = self._wishes.popleft()
            if not wanted:
                enter.discard(number)
                leave.add(number)
            elif number in self._leaving or number in leave:
                later.append((number, wanted))
            else:
                enter.add(number)
        self._wishes.extend(later)
        self._leaving |= leave
        gone = leave & self.consumed
        if gone:
            self._queues.cancel(sorted(gone))
            self.consumed -= gone
        enter -= self.consumed
        if enter:
            self._consume(enter)
            self.consumed |= enter
        if gone or enter:
            event(logger, logging.INFO, "chain_router_consuming", partitions=len(self.consumed), new=len(enter))

    def _consume(self, numbers: Iterable[int]) -> None:
        # Such as `celery.wake` beside `celery`: then there is one beside every queue.
        names = self._consumer.app.amqp.queues.consume_from
        for name in names:
            if self._partitions.number(name) is None:
                self._endings |= {other.removeprefix(name) for other in names if other.startswith(f"{name}.")}
        self._queues.consume(sorted(numbers), sorted(self._endings))

    def _empty(self) -> None:
        """Whatever has not started goes back to its queue, at its head and in its order."""
        self._queues.give_back(self._lane.take_back(self._lane.partitions_in_hand() - self.consumed))
        if self._queues.is_settled:
            empty = {number for number in self._leaving if not self._lane.has_in_hand(number)}
            self._leaving -= empty
            self.emptied |= empty
