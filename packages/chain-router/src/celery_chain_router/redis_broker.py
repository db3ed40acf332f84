"""The messages of a Redis broker as kombu keeps them: lists of those that wait, a hash of those that are in hand."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import redis

from celery_toolkit_core.scripts import Scripts

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    #: (queue, message) -> the queue where the message belongs, or ``None`` to leave it; it may change the headers.
    Place = Callable[[str, dict[str, Any]], str | None]

#: Messages that one script moves; it holds the broker for about two microseconds each.
PAGE = 500


class RedisBroker:
    """Moves messages between queues, each in one piece: a process killed at any point loses and doubles none.

    A message that moves gets its new queue into its ``delivery_info``. So whatever is in hand with a queue's name in it
    was taken out of that very queue.

    Args:
        channel: A channel of kombu's Redis transport.
    """

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        # The channel's own client adds the key prefix to some commands only: ours shares its pool and adds it always.
        self._client = redis.Redis(connection_pool=channel.pool)
        self._scripts = Scripts(self._client, "celery_chain_router")
        self._prefix = getattr(channel, "global_keyprefix", "") or ""

    def filled(self, queues: Collection[str]) -> list[str]:
        """Those of the queues in which something waits: one round trip for all of them."""
        names = list(queues)
        pipe = self._client.pipeline(transaction=False)
        for name in names:
            pipe.exists(*{self._key(name, priority) for priority in self._channel.priority_steps})
        return [name for name, found in zip(names, pipe.execute(), strict=True) if found]

    def move_waiting(self, queue: str, place: Place) -> Counter[str]:
        """Move what waits in a queue, in front of the other queues, the oldest first; queue -> messages.

        What cannot be read stays.
        """
        counts: Counter[str] = Counter()
        for priority in self._channel.priority_steps:
            source = self._key(queue, priority)
            stay = 0
            while page := self._client.lrange(source, stay, stay + PAGE - 1):
                # From the newest to the oldest, each to the front: the oldest is then the next to be taken.
                moves = [(target, raw, message) for raw in page for target, message in _placed(queue, raw, place)]
                stay += len(page) - len(moves)
                targets = sorted({target for target, *_ in moves})
                arguments: list[Any] = []
                for target, raw, message in moves:
                    arguments += [targets.index(target) + 2, raw, _addressed(message, target)]
                if moves:
                    keys = [source, *(self._key(target, priority) for target in targets)]
                    self._scripts.run("move_messages", keys, arguments)
                counts.update(target for target, *_ in moves)
        return counts

    def restore_unacknowledged(self, queues: Collection[str], place: Place) -> Counter[str]:
        """Let those messages wait again that a consumer of these queues had in hand; queue -> messages.

        Only for queues whose consumer is dead. O(all messages that are in hand). A message comes in front of what
        waits, the oldest first, marked as redelivered. One that `place` leaves goes back to its own queue.
        """
        found = list(self._in_hand(queues))
        pipe = self._client.pipeline(transaction=False)
        for tag, *_ in found:
            pipe.zscore(self._prefix + self._channel.unacked_index_key, tag)
        ages = dict(zip([tag for tag, *_ in found], pipe.execute(), strict=True))
        # The newest first, each to the front.
        found.sort(key=lambda each: -(ages[each[0]] or 0.0))
        counts: Counter[str] = Counter()
        for start in range(0, len(found), PAGE):
            moves = [(tag, place(queue, message) or queue, message) for tag, queue, message in found[start:][:PAGE]]
            lists = [self._key(target, self._priority(message)) for _, target, message in moves]
            keys = sorted(set(lists))
            arguments = []
            for (tag, target, message), name in zip(moves, lists, strict=True):
                arguments += [tag, keys.index(name) + 3, _addressed(message, target, redelivered=True)]
            names = (self._channel.unacked_key, self._channel.unacked_index_key)
            self._scripts.run("restore_messages", [*(self._prefix + name for name in names), *keys], arguments)
            counts.update(target for _, target, _ in moves)
        return counts

    def _in_hand(self, queues: Collection[str]) -> Iterator[tuple[bytes, str, dict[str, Any]]]:
        """(delivery tag, queue, message) of all that came out of one of the queues."""
        origins: dict[tuple[str, str], str] = {}
        for tag, stored in self._client.hscan_iter(self._prefix + self._channel.unacked_key, count=PAGE):
            try:
                message, exchange, routing_key = json.loads(stored)
            except (ValueError, TypeError):
                continue
            if not _is_message(message):
                continue
            address = (exchange or "", routing_key or "")
            if address not in origins:
                known = [*self._channel._lookup(*address)]
                # From an exchange into several queues: nobody can say which of them it came out of.
                origins[address] = known[0] if len(known) == 1 else ""
            if origins[address] in queues:
                yield tag, origins[address], message

    def _priority(self, message: dict[str, Any]) -> int:
        return int(self._channel._get_message_priority(message, reverse=False))

    def _key(self, queue: str, priority: int) -> str:
        return f"{self._prefix}{self._channel._q_for_pri(queue, priority)}"


def _is_message(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and "body" in value
        and isinstance(value.get("headers"), dict)
        and isinstance(value.get("properties"), dict)
    )


def _placed(queue: str, raw: bytes | str, place: Place) -> Iterator[tuple[str, dict[str, Any]]]:
    """The message and where it belongs; nothing when it stays."""
    try:
        message = json.loads(raw)
    except ValueError:
        return
    target = place(queue, message) if _is_message(message) else None
    if target is not None:
        yield target, message


def _addressed(message: dict[str, Any], queue: str, *, redelivered: bool = False) -> str:
    """The message with its new address; the body and all else as they were."""
    info = message["properties"].setdefault("delivery_info", {})
    info.update(exchange="", routing_key=queue)
    if redelivered:
        info["redelivered"] = message["headers"]["redelivered"] = True
    return json.dumps(message)
