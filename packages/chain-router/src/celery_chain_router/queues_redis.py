"""The partitions' queues on a Redis broker: kombu's lists, and its hash of what is not acknowledged."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from queue import Empty
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import redis
from kombu.transport.virtual import QoS

from celery_toolkit_core.scripts import Scripts

from .consuming import drop, take_up

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from .lane import Entry
    from .partitions import Partitions

logger = logging.getLogger(__name__)

#: Unacknowledged messages that one HSCAN looks at, and that one script brings back.
PAGE = 200


class RedisQueues:
    """See `PartitionQueues`.

    kombu waits for messages with one BRPOP of all queues. One that was sent before a queue was dropped may still bring
    a message of it, for up to a second (`brpop_timeout`): until then we are not done with the queue.

    Args:
        app: The application.
        partitions: The queues.
        may_fetch: Tells whether this process certainly holds its partitions; while it does not, no BRPOP is sent.
    """

    def __init__(self, app: Any, partitions: Partitions, may_fetch: Callable[[], bool]) -> None:
        self._app = app
        self._partitions = partitions
        self._may_fetch = may_fetch
        self._consumer: Any = None
        self._channel: Any = None
        self._connection: Any = None
        self._polls = 0
        # Dropped queues whose messages may still come, with the number of the poll that is the last to bring one.
        self._dropped: dict[str, int] = {}

    def attach(self, consumer: Any) -> None:
        """Meet the consumer: from now on its channel asks us before it asks the server."""
        self._consumer = consumer
        self._channel = channel = consumer.task_consumer.channel
        self._dropped.clear()
        send = channel._brpop_start

        def send_if_held(*args: Any, **options: Any) -> Any:
            if not self._may_fetch() and any(self._partitions.number(name) is not None for name in self._queues()):
                return None
            self._polls += 1
            return send(*args, **options)

        channel._brpop_start = send_if_held

    def consume(self, queues: Sequence[str]) -> None:
        """Begin to consume; from the next BRPOP on."""
        for name in queues:
            self._dropped.pop(name, None)
        take_up(self._consumer, queues)

    def cancel(self, queues: Sequence[str]) -> None:
        """Consume no more; the BRPOP that is on its way may still bring a message."""
        callbacks = self._channel.connection._callbacks
        kept = {name: callbacks[name] for name in queues if name in callbacks}
        drop(self._consumer, queues)
        # Without a callback kombu would put such a message at the end of its queue.
        callbacks.update(kept)
        self._dropped.update(dict.fromkeys(kept, self._polls))

    def is_settled(self) -> bool:
        """Whether the BRPOP that knew the dropped queues has answered."""
        if self._channel._in_poll and self._polls <= max(self._dropped.values(), default=-1):
            return False
        callbacks = self._channel.connection._callbacks
        for name in self._dropped:
            if name not in self._queues():
                callbacks.pop(name, None)
        self._dropped.clear()
        return True

    def drain(self) -> None:
        """Read the answer that is on its way."""
        if self._channel._in_poll:
            try:
                self._channel._brpop_read()
            except Empty:
                pass
            except self._consumer.connection_errors:
                logger.debug("the broker's last answer did not come", exc_info=True)

    def give_back(self, entries: Sequence[Entry]) -> None:
        """Out of the hash, to the heads of their lists."""
        if not entries:
            return
        client, channel = self._client()
        tags = [entry.tag for entry in entries]
        # What is no longer there, somebody else has adopted.
        found = zip(tags, client.hmget(self._key(channel.unacked_key), tags), strict=True)
        self._restore(None, [(tag, value) for tag, value in found if value is not None])
        self._discharge(entries)

    def adopt(self, fences: Mapping[int, int], mine: Collection[Any]) -> Mapping[int, int]:
        """Likewise, for what the former owners had."""
        client, channel = self._client()
        for number, fence in fences.items():
            # First of all, so that a former owner who believes to be one still adopts nothing any more.
            self._run(channel, number, fence, [], [])
        orphans: dict[int | None, list[tuple[str, bytes]]] = defaultdict(list)
        for raw_tag, value in client.hscan_iter(self._key(channel.unacked_key), count=PAGE):
            tag, partition = raw_tag.decode(), self._partitions.number(_queue_of(value) or "")
            if partition in fences and tag not in mine:
                orphans[partition].append((tag, value))
        adopted = {}
        for number, found in ((number, orphans[number]) for number in fences if number in orphans):
            moments = client.zmscore(self._key(channel.unacked_index_key), [tag for tag, _ in found])
            in_order = sorted(
                zip(moments, range(len(found)), found, strict=True), key=lambda item: (item[0] or 0.0, item[1])
            )
            adopted[number] = self._restore((number, fences[number]), [item for _, _, item in in_order])
        return {number: count for number, count in adopted.items() if count > 0}

    def disconnect(self, entries: Iterable[Entry]) -> None:
        """Take them out of what kombu restores, which would be what bodies work on, and the rest in reverse."""
        self._discharge(entries)

    def forget(self, entry: Entry) -> None:
        """Remove it from the hash."""
        client, channel = self._client()
        with client.pipeline() as pipe:
            pipe.zrem(self._key(channel.unacked_index_key), entry.tag)
            pipe.hdel(self._key(channel.unacked_key), entry.tag)
            pipe.execute()

    def backlog(self, queues: Sequence[str]) -> tuple[list[int], list[int] | None]:
        """Lengths of the lists, and how many messages of the hash are of each queue."""
        client, channel = self._client()
        with client.pipeline(transaction=False) as pipe:
            for name in queues:
                for priority in channel.priority_steps:
                    pipe.llen(self._key(channel._q_for_pri(name, priority)))
            lengths = pipe.execute()
        steps = len(channel.priority_steps)
        taken: dict[str | None, int] = defaultdict(int)
        for _, value in client.hscan_iter(self._key(channel.unacked_key), count=PAGE):
            taken[_queue_of(value)] += 1
        waiting = [sum(lengths[index * steps : (index + 1) * steps]) for index in range(len(queues))]
        return waiting, [taken[name] for name in queues]

    def close(self) -> None:
        """Close our own connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.release()

    def _queues(self) -> list[str]:
        return list(self._channel._active_queues)

    def _discharge(self, entries: Iterable[Entry]) -> None:
        """Make room for others, and let kombu restore none of them when the channel closes."""
        if self._channel is not None and self._channel._qos is not None:
            for entry in entries:
                QoS.ack(self._channel._qos, entry.tag)

    def _restore(self, adopted: tuple[int, int] | None, found: Sequence[tuple[str, bytes]]) -> int:
        _, channel = self._client()
        number, fence = adopted or ("", "")
        restored = 0
        # From the newest to the oldest, each to the front: the oldest is then the next to be taken.
        newest_first = list(reversed(found))
        for start in range(0, len(newest_first), PAGE):
            lists: list[str] = []
            arguments: list[Any] = []
            for tag, value in newest_first[start : start + PAGE]:
                queue, message = _queue_of(value), json.loads(value)[0]
                if queue is None:
                    continue
                # The former owner knows the old tag, and must not acknowledge the new delivery by it.
                message["properties"]["delivery_tag"] = str(uuid4())
                message["headers"]["redelivered"] = True
                priority = channel._get_message_priority(message, reverse=False)
                name = self._key(channel._q_for_pri(queue, priority))
                if name not in lists:
                    lists.append(name)
                arguments += [tag, lists.index(name) + 1, json.dumps(message)]
            restored += max(0, self._run(channel, number, fence, lists, arguments))
        return restored

    def _run(self, channel: Any, number: int | str, fence: int | str, lists: list[str], arguments: list[Any]) -> int:
        own = [channel.unacked_key, channel.unacked_index_key, f"chain-router.fences.{self._partitions.prefix}"]
        keys = [*map(self._key, own), *lists]
        client, _ = self._client()
        return int(Scripts(client, "celery_chain_router").run("restore", keys, [number, fence, *arguments]))

    def _key(self, name: str) -> str:
        return f"{getattr(self._client()[1], 'global_keyprefix', '') or ''}{name}"

    def _client(self) -> tuple[Any, Any]:
        """A connection of our own: the consumer's may be waiting, or gone."""
        if self._connection is None:
            self._connection = self._app.connection_for_write()
        channel = self._connection.default_channel
        # The channel's own client adds the key prefix to some commands only: ours shares its pool and adds it always.
        return redis.Redis(connection_pool=channel.pool), channel


def _queue_of(value: bytes) -> str | None:
    """The queue of an entry of kombu's hash; ``None`` when it cannot be read."""
    try:
        _, _, routing_key = json.loads(value)
    except (ValueError, TypeError):
        return None
    # A partition's queue has its own name for a routing key, with whatever exchange.
    return routing_key if isinstance(routing_key, str) else None
