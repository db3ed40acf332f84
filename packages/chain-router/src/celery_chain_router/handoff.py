"""The hand-off as the consumer's own thread does it: take up queues, drop them, empty this worker's hands of them.

Other threads only leave wishes here, and read what has come of them.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any

from celery_toolkit_core.log import event

from .consuming import companions

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
        left = self._lane.take_back()
        self._queues.give_back(left)
        self._wishes.extendleft((number, True) for number in self.consumed - self._leaving)
        self.consumed = frozenset()

    def disconnect(self, consumer: Any) -> None:
        """The broker's connection is lost: consume nothing at first when it is back."""
        self._queues.disconnect(self._lane.everything())
        consumer.app.amqp.queues.deselect(self._with_companions(self.consumed))
        self._lane.disconnect()

    def tick(self) -> None:
        """Do what is to be done; often, and quick when there is nothing."""
        self._take_wishes()
        if self._leaving:
            self._empty()
        for entry in self._lane.take_unheard():
            self._queues.forget(entry)
        self._lane.resume()

    def close(self) -> None:
        """A warm shutdown begins: give back all that has not started; what runs goes on."""
        self._queues.cancel(self._with_companions(self.consumed))
        self._leaving |= self.consumed
        self.consumed = frozenset()
        self._queues.drain()
        self._empty()

    def finish(self) -> None:
        """The pool has ended: give back what is left."""
        self._queues.give_back(self._lane.take_all())
        self._queues.close()

    def _take_wishes(self) -> None:
        enter: set[int] = set()
        later = []
        while self._wishes:
            number, wanted = self._wishes.popleft()
            if wanted and number in self._leaving:
                later.append((number, wanted))
            elif wanted:
                enter.add(number)
            else:
                enter.discard(number)
                self._leaving.add(number)
        self._wishes.extend(later)
        gone = self._leaving & self.consumed
        if gone:
            self._queues.cancel(self._with_companions(gone))
            self.consumed -= gone
        enter -= self.consumed
        if enter:
            self._learn_endings()
            self._queues.consume(
                [
                    f"{self._partitions.queue(number)}{ending}"
                    for number in sorted(enter)
                    for ending in ("", *sorted(self._endings))
                ]
            )
            self.consumed |= enter
        if gone or enter:
            event(logger, logging.INFO, "chain_router_consuming", partitions=len(self.consumed), new=len(enter))

    def _empty(self) -> None:
        """Whatever has not started goes back to its queue, at its head and in its order."""
        self._queues.give_back(self._lane.take_back(self._leaving))
        self._queues.give_back(self._lane.take_unanswered(ANSWER))
        if self._queues.is_settled():
            empty = {number for number in self._leaving if not self._lane.has_in_hand(number)}
            self._leaving -= empty
            self.emptied |= empty

    def _with_companions(self, numbers: Iterable[int]) -> list[str]:
        names = [self._partitions.queue(number) for number in sorted(numbers)]
        return [*names, *(companion for name in names for companion in companions(self._consumer, name))]

    def _learn_endings(self) -> None:
        # A companion such as `celery.wake` beside `celery` says that every queue has one.
        for name in tuple(self._consumer.app.amqp.queues.consume_from):
            if self._partitions.number(name) is None:
                found = companions(self._consumer, name)
                self._endings |= {other.removeprefix(name) for other in found if self._partitions.number(other) is None}
