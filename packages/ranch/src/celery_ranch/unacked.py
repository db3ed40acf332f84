"""What a worker on a Redis broker notes of a ticket that it has received: nothing outside its own memory.

kombu writes every message that it delivers into a hash at the broker and takes it out again when it is acknowledged:
two round trips, so that another worker finds it after the visibility timeout. For a ticket ranch does that itself,
sooner and for the task: what was claimed has a lease, its sweeper issues the ticket anew, and an idle worker issues
what is missing. All other messages of the channel are kombu's as before.
"""

from __future__ import annotations

from typing import Any

from kombu.transport import redis, virtual

from .ticket_office import TICKET


def note_no_tickets(channel: Any) -> None:
    """Let a worker's channel of the Redis transport keep the tickets that it delivers to itself.

    Prefetch counts them as ever, and those that are rejected with requeue, or open when the channel closes, go back.
    A channel of another transport, or with a `QoS` that somebody else has made, is left alone.
    """
    if isinstance(channel, redis.Channel) and type(channel.qos) is redis.QoS:
        channel.qos.__class__ = TicketQoS


class TicketQoS(redis.QoS):
    """kombu's record of unacknowledged messages, in which tickets are noted in this process only."""

    def append(self, message: Any, delivery_tag: str) -> None:
        """A message has been received."""
        if _is_ticket(message):
            virtual.QoS.append(self, message, delivery_tag)
        else:
            super().append(message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """A message has been dealt with."""
        if self._ticket(delivery_tag) is None:
            super().ack(delivery_tag)
        else:
            virtual.QoS.ack(self, delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """A message has been refused."""
        if self._ticket(delivery_tag) is None:
            super().reject(delivery_tag, requeue=requeue)
            return
        if requeue:
            self.restore_by_tag(delivery_tag, leftmost=True)
        virtual.QoS.ack(self, delivery_tag)

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:
        """Put a message back into its queue."""
        ticket = self._ticket(tag)
        if ticket is None:
            super().restore_by_tag(tag, client=client, leftmost=leftmost)
            return
        channel: Any = self.channel
        where = ticket.delivery_info
        with channel.conn_or_acquire(client) as connected:
            channel._do_restore_message(ticket._raw, where["exchange"], where["routing_key"], connected, leftmost)

    def _ticket(self, tag: str) -> Any:
        delivered: Any = self._delivered
        message = delivered.get(tag)
        return message if message is not None and _is_ticket(message) else None


def _is_ticket(message: Any) -> bool:
    return bool(message.headers.get("task") == TICKET)
