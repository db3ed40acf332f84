"""How deep the queues are, and how old the oldest message is, for whoever scales workers or wakes people."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import redis

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery import Celery
    from kombu import Queue

# The last two of the three entries of what kombu notes for an unacknowledged message; the first may be huge.
_ADDRESS = re.compile(rb'"((?:[^"\\]|\\.)*)", "((?:[^"\\]|\\.)*)"\]$')


@dataclass(frozen=True, slots=True)
class Depth:
    """One queue at one moment.

    Attributes:
        waiting: Messages that no worker has fetched, over all priorities.
        unacknowledged: Messages that a worker has fetched and may still run; ``None`` where the broker does not tell.
        oldest: Seconds that the message at the head has waited, 0 for an empty queue; ``None`` where nobody can tell.
    """

    queue: str
    waiting: int
    unacknowledged: int | None
    oldest: float | None


class Depths:
    """Looks at the queues of an application, again and again.

    A message that carries no time of sending is as old as this object has seen it at the head of its queue.

    Args:
        app: The application; its declared queues are looked at.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._heads: dict[str, tuple[str, float]] = {}

    def read(self) -> list[Depth]:
        """All queues, by name.

        Raises:
            kombu.exceptions.OperationalError: The broker is away.
        """
        queues: Mapping[str, Queue] = self._app.amqp.queues
        # The broker has to answer soon, or the one who scrapes gives up first.
        with self._app.connection_for_read() as connection:
            connection.ensure_connection(max_retries=0, timeout=5)
            with connection.channel() as channel:
                if connection.transport.driver_type == "redis":
                    return self._of_redis(channel, queues)
            return [_of_others(connection, name) for name in sorted(queues)]

    def _of_redis(self, channel: Any, queues: Mapping[str, Queue]) -> list[Depth]:
        # Kombu's own client puts the prefix before the keys of some commands and not of others.
        client: Any = redis.Redis(connection_pool=channel.client.connection_pool)
        prefix = getattr(channel, "global_keyprefix", "") or ""
        unacknowledged = _unacknowledged(client, f"{prefix}{channel.unacked_key}", queues)
        found = []
        for name in sorted(queues):
            keys = [prefix + channel._q_for_pri(name, priority) for priority in channel.priority_steps]
            with client.pipeline(transaction=True) as pipe:
                for key in keys:
                    pipe.llen(key)
                    # Workers take from this end.
                    pipe.lindex(key, -1)
                answers = pipe.execute()
            ages = [self._age(key, head) for key, head in zip(keys, answers[1::2], strict=True)]
            found.append(Depth(name, sum(answers[::2]), unacknowledged.get(name, 0), max(ages)))
        return found

    def _age(self, key: str, head: bytes | None) -> float:
        if head is None:
            self._heads.pop(key, None)
            return 0.0
        properties: dict[str, Any] = json.loads(head).get("properties", {})
        now = time.time()
        tag = str(properties.get("delivery_tag"))
        known, since = self._heads.get(key, ("", now))
        if known != tag:
            since = now
            self._heads[key] = tag, now
        sent = properties.get("timestamp")
        return max(0.0, now - (sent if isinstance(sent, (int, float)) else since))


def _of_others(connection: Any, name: str) -> Depth:
    # Whoever asks for a queue that is not there loses the channel.
    with connection.channel() as channel:
        try:
            waiting = channel.queue_declare(queue=name, passive=True).message_count
        except connection.channel_errors:
            waiting = 0
    return Depth(name, waiting, None, None)


def _unacknowledged(client: Any, key: str, queues: Mapping[str, Queue]) -> dict[str, int]:
    by_address = {(queue.exchange.name, queue.routing_key): name for name, queue in queues.items()}
    counts: dict[str, int] = {}
    for _, noted in client.hscan_iter(key, count=500):
        match = _ADDRESS.search(noted)
        exchange, routing_key = (json.loads(b'"%s"' % part) for part in match.groups()) if match else ("", "")
        name = by_address.get((exchange, routing_key), routing_key)
        counts[name] = counts.get(name, 0) + 1
    return counts
