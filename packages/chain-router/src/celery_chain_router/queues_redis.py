"""The partitions' queues on a Redis broker: kombu's lists, and beside each a hash of what its owner has in hand.

Not by kombu's own consumer. It takes a message off its list before it notes it as unacknowledged, so that a kill in
between loses it; and the request for it, which names every queue, stays with the server for a second whatever happens
to the worker. Here one script does both, for many messages at a time, and only for the owner with the highest fence.
"""

from __future__ import annotations

import logging
from collections import defaultdict, deque
from threading import RLock
from typing import TYPE_CHECKING, Any, ClassVar

import redis
from kombu.transport import virtual
from kombu.utils import json

from celery_toolkit_core.errors import RedisUnavailable
from celery_toolkit_core.log import event
from celery_toolkit_core.scripts import Scripts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .entry import Entry
    from .lane import Lane
    from .partitions import Partitions
    from .tenure import Tenure

logger = logging.getLogger(__name__)

#: Messages that one script moves at most; it holds the broker for about a microsecond each.
PAGE = 200

#: Messages of one partition that may wait for their key's turn; then its queue rests, and the others go on.
HELD_BACK = 8


class TakenMessage(virtual.Message):
    """A message that a partition's hash knows to be in hand; to answer it takes no connection of the consumer's.

    Args:
        queues: Where it came from.
        partition: The partition.
        number: Its number in the partition's hash.
        fence: The fence under which it was taken.
        raw: What stood in the list.
        channel: The consumer's channel, for what kombu decodes by it.
    """

    _state: str
    #: Whether its answer may be sent in the very moment in which a body has ended, whatever the consumer does then.
    is_answered_at_once: ClassVar[bool] = True

    def __init__(self, queues: RedisQueues, partition: int, number: int, fence: int, raw: Any, channel: Any) -> None:
        if raw.pop("redelivered", False):
            raw["headers"]["redelivered"] = raw["properties"]["delivery_info"]["redelivered"] = True
        super().__init__(raw, channel=channel)
        self.delivery_tag: Any = f"{partition}.{number}"
        self.partition = partition
        self.number = number
        self.fence = fence
        self._queues = queues

    def ack(self, multiple: bool = False) -> None:
        """Take it out of the hash."""
        self._answer("ACK")
        self._queues.acknowledge(self)

    def reject(self, requeue: bool = False) -> None:
        """Take it out of the hash or, with `requeue`, put it back to the head of its list."""
        self._answer("REQUEUED" if requeue else "REJECTED")
        if requeue:
            self._queues.restore([self])
        else:
            self._queues.acknowledge(self)

    def requeue(self) -> None:
        """Put it back."""
        self.reject(requeue=True)

    def _answer(self, state: str) -> None:
        if self.acknowledged:
            raise self.MessageStateError(f"Message already acknowledged with state: {self._state}")
        self._state = state


class RedisQueues:
    """See `PartitionQueues`.

    Args:
        app: The application.
        partitions: The queues.
        tenure: What this process holds.
    """

    outlives_connection: ClassVar[bool] = True
    is_bound_to_consumer: ClassVar[bool] = False

    def __init__(self, app: Any, partitions: Partitions, tenure: Tenure | None) -> None:
        self._app = app
        self._partitions = partitions
        self._tenure = tenure
        self._consumer: Any = None
        self._connection: Any = None
        self._scripts: Scripts | None = None
        # Partition -> the queues that are consumed of it, companions first.
        self._consumed: dict[int, list[str]] = {}
        # Partition -> the last number that has arrived here.
        self._received: dict[int, int] = {}
        # Partition, number, fence and message of what has arrived and not been delivered.
        self._arrived: deque[tuple[int, int, int, bytes]] = deque()
        # Answers that the server has not taken yet: what to run, in order.
        self._unsent: deque[tuple[str, TakenMessage]] = deque()
        # Pools of threads answer from theirs.
        self._lock = RLock()

    def attach(self, consumer: Any) -> None:
        """Meet the consumer, whose strategies get the messages."""
        self._consumer = consumer
        self._consumed.clear()

    def consume(self, numbers: Sequence[int], endings: Sequence[str]) -> None:
        """Look into these queues from now on."""
        for number in numbers:
            queue = self._partitions.queue(number)
            self._consumed[number] = [*(f"{queue}{ending}" for ending in endings), queue]

    def cancel(self, numbers: Sequence[int]) -> None:
        """Look into them no more."""
        for number in numbers:
            self._consumed.pop(number, None)

    def poll(self, lane: Lane) -> int:
        """Take as many messages as the pool may want next, at most `HELD_BACK` of a partition that is stuck."""
        self._send_answers()
        self._deliver_arrived()
        room = min(PAGE, self._limit() - lane.occupied())
        assert self._tenure is not None
        held = [(number, fence) for number in self._consumed if (fence := self._tenure.fence(number)) is not None]
        if room <= 0 or not held or self._consumer.task_consumer.on_message is None:
            return 0
        keys: list[str] = []
        arguments: list[Any] = [room]
        waiting = lane.held_back()
        for number, fence in held:
            lists = [self._list(queue, priority) for queue in self._consumed[number] for priority in self._steps]
            keys += [self._hash(number), *lists]
            arguments += [fence, self._received.get(number, 0), max(0, HELD_BACK - waiting[number]), len(lists)]
        with self._lock:
            flat = self._run("take", keys, arguments)
            for index in range(0, len(flat), 4):
                number = held[flat[index] - 1][0]
                if flat[index + 1]:
                    self._received[number] = flat[index + 1]
                    self._arrived.append((number, flat[index + 1], held[flat[index] - 1][1], flat[index + 3]))
                # else somebody else has it; the next sign of life will say so.
        # Each look begins with another partition: the first one has an advantage when there is little room.
        first = next(iter(self._consumed))
        self._consumed[first] = self._consumed.pop(first)
        return self._deliver_arrived()

    def give_back(self, entries: Sequence[Entry]) -> None:
        """Out of the hash, to the heads of their lists."""
        taken: list[TakenMessage] = []
        for entry in entries:
            # A message of another package rides on the one that came.
            message = getattr(entry.delivery.message, "carrier", entry.delivery.message)
            if isinstance(message, TakenMessage) and not message.acknowledged:
                message._state = "REQUEUED"
                taken.append(message)
        self.restore(taken)

    def adopt(self, fences: Mapping[int, int], lane: Lane) -> int:
        """Likewise, for what the former owners had; from now on they take nothing any more."""
        numbers = list(fences)
        mine: dict[int, list[str]] = defaultdict(list)
        for tag in lane.tags:
            partition, _, number = str(tag).partition(".")
            mine[int(partition)].append(number)
        arguments = [item for number in numbers for item in (fences[number], f" {' '.join(mine[number])} ")]
        flat = self._run("adopt", [self._hash(number) for number in numbers], arguments)
        self._received.update(zip(numbers, flat[1::2], strict=True))
        return sum(max(0, count) for count in flat[::2])

    def acknowledge(self, message: TakenMessage) -> None:
        """It is done with."""
        self._unsent.append(("acknowledge", message))
        self._try_to_send()

    def restore(self, messages: Sequence[TakenMessage]) -> None:
        """Back to the head of their queues; in the order given, the first in front."""
        # From the newest to the oldest, each to the front.
        self._unsent.extend(("restore", message) for message in reversed(messages))
        self._try_to_send()

    @property
    def is_settled(self) -> bool:
        """Whether the server has been told how everything ended."""
        return not self._unsent

    def backlog(self) -> tuple[list[int], list[int] | None]:
        """Lengths of the lists, and sizes of the hashes."""
        client = self._client()
        with client.pipeline(transaction=False) as pipe:
            for number, queue in enumerate(self._partitions):
                pipe.hlen(self._hash(number))
                for priority in self._steps:
                    pipe.llen(self._list(queue, priority))
            sizes = pipe.execute()
        width = 1 + len(self._steps)
        rows = [sizes[start : start + width] for start in range(0, len(sizes), width)]
        # Two of the fields are no messages.
        return [sum(row[1:]) for row in rows], [max(0, row[0] - 2) for row in rows]

    def close(self) -> None:
        """Close our own connection."""
        self._try_to_send()
        connection, self._connection, self._scripts = self._connection, None, None
        if connection is not None:
            connection.release()

    def _limit(self) -> int:
        """How many messages this worker may have in hand, those apart that wait for their key or their ETA."""
        prefetch = self._consumer.prefetch_multiplier
        pool = self._consumer.controller.max_concurrency or self._consumer.pool.num_processes or 1
        return int(pool * prefetch) if prefetch else PAGE

    def _deliver_arrived(self) -> int:
        delivered = 0
        while self._arrived:
            # First: what cannot be delivered must not be tried for ever.
            self._deliver(*self._arrived.popleft())
            delivered += 1
        return delivered

    def _deliver(self, partition: int, number: int, fence: int, data: bytes) -> None:
        consumer = self._consumer.task_consumer
        try:
            message = TakenMessage(self, partition, number, fence, json.loads(data), consumer.channel)
        except Exception:
            # Not from kombu. It is out of everybody's way, and there for whoever wants to know what it was.
            queue = self._partitions.queue(partition)
            logger.exception("chain_router_unreadable queue=%s", queue)
            self._client().lpush(self._key(f"{queue}.unreadable"), data)
            self._client().hdel(self._hash(partition), number)
            return
        message.accept = consumer.accept or message.accept
        if message.errors:
            message._reraise_error(consumer.on_decode_error)
        else:
            consumer.on_message(message)

    def _try_to_send(self) -> None:
        try:
            self._send_answers()
        except (RedisUnavailable, redis.RedisError) as error:
            event(logger, logging.WARNING, "chain_router_answers_wait", messages=len(self._unsent), error=repr(error))

    def _send_answers(self) -> None:
        with self._lock:
            while self._unsent:
                what, message = self._unsent[0]
                partition = message.partition
                hash_key = self._hash(partition)
                if what == "acknowledge":
                    self._client().hdel(hash_key, message.number)
                else:
                    self._run("give_back", [hash_key], [message.fence, self._received[partition], message.number])
                self._unsent.popleft()

    def _run(self, name: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        client = self._client()
        if self._scripts is None:
            self._scripts = Scripts(client, "celery_chain_router")
        return self._scripts.run(name, keys, arguments)

    def _hash(self, number: int) -> str:
        return self._key(f"{self._partitions.queue(number)}.taken")

    def _list(self, queue: str, priority: int) -> str:
        return self._key(self._channel._q_for_pri(queue, priority))

    def _key(self, name: str) -> str:
        return f"{getattr(self._channel, 'global_keyprefix', '') or ''}{name}"

    @property
    def _steps(self) -> Sequence[int]:
        return self._channel.priority_steps  # type: ignore[no-any-return]  # kombu has no types

    @property
    def _channel(self) -> Any:
        """A channel of our own: the consumer's comes and goes."""
        if self._connection is None:
            self._connection = self._app.connection_for_write()
        return self._connection.default_channel

    def _client(self) -> redis.Redis:
        # The channel's own client adds the key prefix to some commands only: ours shares its pool and adds it always.
        return redis.Redis(connection_pool=self._channel.pool)
