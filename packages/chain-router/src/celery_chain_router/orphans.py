"""Orphans: messages of a worker that is gone. Whoever is elected moves them to the owners of today."""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from celery_toolkit_core.celery.messages import StoredMessage
from celery_toolkit_core.log import event

from .mark import owner_of_today
from .redis_broker import RedisBroker

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from celery_toolkit_core.ring import HashRing

    from .membership import Member
    from .redis_broker import Place

logger = logging.getLogger(__name__)


class Orphans:
    """What waits in the queues of members that are gone, and on a Redis broker what those had in hand.

    A message that the router has sent goes to the owner of its key. One that its caller has sent to that very worker
    stays, and so does one that cannot be read. Anything else in the queue (a ticket of another package, say) goes to
    any of the others, so that nothing is stranded.

    On a Redis broker a message moves in one script. Elsewhere it is published again and then acknowledged: a crash in
    between delivers it twice; and the broker itself gives back what a dead consumer had in hand.

    Args:
        app: The application whose broker it is.
        hash_function: That of the router.
        companions: Tells the endings of further queues that each worker has; some die before they have told theirs.
    """

    def __init__(
        self, app: Any, hash_function: Callable[[bytes], int], companions: Callable[[], Iterable[str]] = tuple
    ) -> None:
        self._app = app
        self._hash = hash_function
        self._companions = companions
        self._connection: Any = None
        # Dead members whose messages in hand have been restored: nothing can be added to those.
        self._restored: set[str] = set()

    def adopt(self, gone: Collection[Member], ring: HashRing) -> int:
        """Move what can be moved; the number of messages.

        Args:
            gone: Members that are dead or stopped.
            ring: The ring of today, without them.
        """
        self._restored &= {member.name for member in gone}
        dead = [member for member in gone if member.name not in ring] if ring else []
        moved = self._adopt_waiting(dead, ring)
        for member in dead:
            if member.name not in self._restored:
                moved += self.restore(member, ring)
                self._restored.add(member.name)
        return moved

    def restore(self, dead: Member, ring: HashRing) -> int:
        """Let wait again what a dead worker had in hand; the number of messages.

        Args:
            dead: The worker; a living one of its name must not have taken messages yet.
            ring: The ring of today.
        """
        with self._broker() as broker:
            if broker is None:
                return 0
            queues = self._queues(dead)
            for queue in queues:
                # What an exchange does with a routing key, kombu knows only of those declared on the connection.
                if declared := self._app.amqp.queues.get(queue):
                    declared.exchange(self._connection.default_channel).declare()
            counts = broker.restore_unacknowledged(queues, partial(self._place, ring, dead.name))
        return _told("chain_router_restored", dead.name, counts)

    def close(self) -> None:
        """Close the connection to the broker."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.release()

    def _adopt_waiting(self, dead: Sequence[Member], ring: HashRing) -> int:
        moved = 0
        owners = {queue: member for member in dead for queue in self._queues(member)}
        with self._broker() as broker:
            for queue in broker.filled(owners) if broker else owners:
                place = partial(self._place, ring, owners[queue].name)
                counts = broker.move_waiting(queue, place) if broker else self._publish_again(queue, place)
                moved += _told("chain_router_adopted", queue, counts)
        return moved

    def _queues(self, worker: Member) -> list[str]:
        return [worker.name, *sorted(worker.name + ending for ending in {*self._companions(), *worker.companions})]

    @contextmanager
    def _broker(self) -> Iterator[RedisBroker | None]:
        """The broker when it is a Redis; a connection that has failed is not used again."""
        if self._connection is None:
            self._connection = self._app.connection_for_write()
        try:
            is_redis = self._connection.transport.driver_type == "redis"
            yield RedisBroker(self._connection.default_channel) if is_redis else None
        except Exception:
            self.close()
            raise

    def _publish_again(self, queue: str, place: Place) -> Counter[str]:
        counts: Counter[str] = Counter()
        with self._connection.channel() as channel:
            bound = self._app.amqp.queues[queue](channel)
            try:
                waiting = bound.queue_declare(passive=True).message_count
            except self._connection.channel_errors:  # nobody has declared it yet: nothing is in it
                return counts
            stay = []
            for _ in range(waiting):
                message = bound.get(no_ack=False)
                if message is None:
                    break
                headers = dict(message.headers)
                target = place(queue, {"headers": headers, "body": message.body})
                if target is None:
                    stay.append(message)
                    continue
                StoredMessage.capture(message).with_headers(**headers).publish(self._app, queue=target)
                message.ack()
                counts[target] += 1
            for message in stay:
                message.requeue()
        return counts

    def _place(self, ring: HashRing, worker: str, queue: str, message: dict[str, Any]) -> str | None:
        """The new queue of a message, with the mark to match; ``None`` when the message has to stay."""
        headers = message["headers"]
        found = owner_of_today(headers, ring, lambda: self._hash(repr((headers.get("id"), message["body"])).encode()))
        if found is None:
            return None
        owner, changes = found
        headers.update(changes)
        return owner + queue.removeprefix(worker)


def _told(what: str, name: str, counts: Counter[str]) -> int:
    if counts:
        event(logger, logging.WARNING, what, queue=name, to=dict(counts))
    return sum(counts.values())
