"""Orphans: messages in the queue of a worker that is gone. Whoever is elected moves them to the owners of today."""

from __future__ import annotations

import json
import logging
from collections import Counter
from typing import TYPE_CHECKING, Any

import redis

from celery_toolkit_core.celery.messages import StoredMessage
from celery_toolkit_core.log import event
from celery_toolkit_core.scripts import Scripts

from .mark import Mark

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from celery_toolkit_core.ring import HashRing

    from .membership import Member

logger = logging.getLogger(__name__)

#: Messages that one script moves; it holds the broker for about a microsecond each.
PAGE = 500


class Orphans:
    """The queues of members that are gone.

    A message that the router has sent goes to the owner of its key. One that its caller has sent to that very worker
    stays, and so does one that cannot be read. Anything else in the queue (a ticket of another package, say) goes to
    any of the others, so that nothing is stranded.

    On a Redis broker a message is moved as it is, out of one list and into the other in one script. Elsewhere it is
    published again and then acknowledged: a crash in between delivers it twice.

    Args:
        app: The application whose broker it is.
        hash_function: That of the router.
    """

    def __init__(self, app: Any, hash_function: Callable[[bytes], int]) -> None:
        self._app = app
        self._hash = hash_function
        self._connection: Any = None

    def adopt(self, gone: Iterable[Member], ring: HashRing) -> int:
        """Move what can be moved; the number of messages.

        Args:
            gone: Members that are dead or stopped.
            ring: The ring of today, without them.
        """
        moved = 0
        for member in gone:
            if member.name in ring or not ring:
                continue
            for ending in ("", *member.companions):
                counts = self._move(member.name, ending, ring)
                if counts:
                    event(logger, logging.WARNING, "chain_router_adopted", queue=member.name + ending, to=dict(counts))
                moved += sum(counts.values())
        return moved

    def close(self) -> None:
        """Close the connection to the broker."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.release()

    def _move(self, worker: str, ending: str, ring: HashRing) -> Counter[str]:
        if self._connection is None:
            self._connection = self._app.connection_for_write()
        try:
            if self._connection.transport.driver_type == "redis":
                return self._move_in_redis(worker, ending, ring)
            return self._publish_again(worker, ending, ring)
        except Exception:
            self.close()
            raise

    def _move_in_redis(self, worker: str, ending: str, ring: HashRing) -> Counter[str]:
        channel = self._connection.default_channel
        # The channel's own client adds the key prefix to some commands only: ours shares its pool and adds it always.
        client = redis.Redis(connection_pool=channel.pool)
        scripts = Scripts(client, "celery_chain_router")
        prefix = getattr(channel, "global_keyprefix", "") or ""
        counts: Counter[str] = Counter()
        for priority in channel.priority_steps:

            def key(name: str, priority: int = priority) -> str:
                return f"{prefix}{channel._q_for_pri(name + ending, priority)}"

            stay = 0
            while page := client.lrange(key(worker), stay, stay + PAGE - 1):
                # From the newest to the oldest, each to the front: the oldest is then the next to be taken.
                moves = [(owner, raw) for raw in page if (owner := self._owner_of(raw, ring)) is not None]
                stay += len(page) - len(moves)
                if not moves:
                    continue
                owners = sorted({owner for owner, _ in moves})
                arguments = [item for owner, raw in moves for item in (owners.index(owner) + 2, raw)]
                scripts.run("move_messages", [key(worker), *map(key, owners)], arguments)
                counts.update(owner for owner, _ in moves)
        return counts

    def _publish_again(self, worker: str, ending: str, ring: HashRing) -> Counter[str]:
        counts: Counter[str] = Counter()
        with self._connection.channel() as channel:
            queue = self._app.amqp.queues[worker + ending](channel)
            try:
                waiting = queue.queue_declare(passive=True).message_count
            except self._connection.channel_errors:  # nobody has declared it yet: nothing is in it
                return counts
            stay = []
            for _ in range(waiting):
                message = queue.get(no_ack=False)
                if message is None:
                    break
                owner = self._owner(message.headers, message.body, ring)
                if owner is None:
                    stay.append(message)
                    continue
                StoredMessage.capture(message).publish(self._app, queue=owner + ending)
                message.ack()
                counts[owner] += 1
            for message in stay:
                message.requeue()
        return counts

    def _owner_of(self, raw: bytes | str, ring: HashRing) -> str | None:
        """The new owner of a message as kombu keeps it in Redis; ``None`` when it has to stay."""
        try:
            message = json.loads(raw)
            return self._owner(message["headers"], message["body"], ring)
        except (ValueError, TypeError, KeyError):
            return None

    def _owner(self, headers: Any, body: Any, ring: HashRing) -> str | None:
        mark = Mark.read(headers)
        if mark is None:
            return ring.at(self._hash(repr((headers.get("id"), body)).encode()))
        return None if mark.key is None else ring.at(mark.key)
