"""Publishing tickets: the first one of a channel as Celery publishes a task, the others the short way.

A ticket is the same few bytes each time but for its id, while most of a publish is work on what does not change: what
to declare, how to retry, headers and properties, and with Redis a new client for every message. A channel that has
taken a ticket for an address has declared what is needed, so the next ones go straight to it; when it fails, the
ordinary way takes over. Should both have sent one, the surplus ticket does nothing.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from kombu import Producer
from kombu.transport.redis import Channel as RedisChannel
from kombu.transport.virtual import Channel as VirtualChannel
from kombu.utils import json

from celery_toolkit_core.shortcut import Shortcut

if TYPE_CHECKING:
    from collections.abc import Callable

    from .application import Address

#: The task name that a ticket carries.
TICKET = "celery_ranch.ticket"
#: The header of a ticket that names its queue.
QUEUE_HEADER = "ranch_queue"

_CONTENT = {"content_type": "application/data", "content_encoding": "binary"}
_PUBLISH, _PUT, _DELIVER = Producer.publish, RedisChannel._put, VirtualChannel.basic_publish
# Where a channel keeps its short ways. A producer, and so its channel, is used by one thread at a time.
_ATTRIBUTE = "_celery_ranch_ways"
# Stands for the id while the bytes of a ticket are made.
_ID = "0" * 32


def publish_ticket(address: Address, producer: Any, **options: Any) -> None:
    """Publish one ticket: whoever receives it claims the fairest task that waits in its queue.

    Args:
        address: Where to.
        producer: A kombu producer.
        **options: Of `kombu.Producer.publish`: retry, declare, ...
    """
    if _took_short_way(address, producer):
        return
    producer.publish(
        b"",
        exchange=address.exchange,
        routing_key=address.routing_key,
        # A fresh id each time, never the task's: brokers and workers remember ids.
        headers=_headers(address, os.urandom(16).hex()),
        **_CONTENT,
        **options,
    )
    if type(producer).publish is _PUBLISH:  # a producer of the user's own may do more
        channel = producer.channel
        _ways(channel)[_way_of(address)] = _short_way(channel, address, options)


def _took_short_way(address: Address, producer: Any) -> bool:
    connection = producer.connection
    if not connection.connected:  # to ask for its channel would mean to wait for the broker
        return False
    try:
        ways = _ways(producer.channel)
        way = ways.get(_way_of(address))
        if way is None:
            return False
        way()
    except (*connection.recoverable_connection_errors, *connection.recoverable_channel_errors):
        return False
    return True


def _way_of(address: Address) -> tuple[str, str, str]:
    return address.exchange, address.routing_key, address.queue


def _ways(channel: Any) -> dict[tuple[str, str, str], Callable[[], object]]:
    """The short ways that a channel knows; they end with it."""
    ways: dict[tuple[str, str, str], Callable[[], object]] = channel.__dict__.setdefault(_ATTRIBUTE, {})
    return ways


def _headers(address: Address, ticket: str) -> dict[str, str]:
    return {"task": TICKET, "id": ticket, QUEUE_HEADER: address.queue}


def _short_way(channel: Any, address: Address, options: dict[str, Any]) -> Callable[[], object]:
    exchange, routing_key = address.exchange, address.routing_key
    properties = {"delivery_mode": options.get("delivery_mode", 2)}
    how = {name: options[name] for name in ("mandatory", "immediate", "timeout", "confirm_timeout") if name in options}

    def message(ticket: str) -> Any:
        return channel.prepare_message(b"", headers=_headers(address, ticket), properties=dict(properties), **_CONTENT)

    its_own = getattr(type(channel), "_put", None) is _PUT and type(channel).basic_publish is _DELIVER
    if its_own and not exchange and not getattr(channel, "_expires", None):
        # What `RedisChannel._put` does, with one client and the bytes of one message for all.
        shortcut = Shortcut(channel._create_client())
        key = channel._q_for_pri(routing_key, 0)
        made = message(_ID)
        channel._inplace_augment_message(made, exchange, routing_key)
        made["properties"]["delivery_tag"] = _ID  # unique for each message; the ticket's id is that too
        parts = json.dumps(made).split(_ID)
        return lambda: shortcut.call("LPUSH", key, os.urandom(16).hex().join(parts))
    return lambda: channel.basic_publish(message(os.urandom(16).hex()), exchange, routing_key, **how)
