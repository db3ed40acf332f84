"""One client for all messages of a worker's channel, where kombu makes a new one for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kombu.transport.redis import Channel

if TYPE_CHECKING:
    from collections.abc import Callable

_CREATE: Callable[..., Any] = vars(Channel)["_create_client"]  # not in the stubs


def keep_client(channel: Any) -> None:
    """Let a channel of the Redis transport keep the client that it publishes, acknowledges and restores with.

    kombu makes a client for each of these, which takes longer than the command itself: a claim on top of that would
    be felt. A client knows nothing but its pool, so one serves as well as many.
    """
    if getattr(type(channel), "_create_client", None) is not _CREATE or "_create_client" in vars(channel):
        return
    kept: list[Any] = []

    def create_client(asynchronous: bool = False) -> Any:
        if asynchronous:  # it is given a connection of its own
            return _CREATE(channel, asynchronous=True)
        if not kept or kept[0].connection_pool is not channel.pool:
            kept[:] = [_CREATE(channel)]
        return kept[0]

    channel._create_client = create_client
