"""The gate before every task of ours: whoever came without a ticket goes into the backlog first."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from celery_toolkit_core.celery.deliveries import TURN, Gate
from celery_toolkit_core.errors import InvalidParameter
from celery_toolkit_core.keys import digest

from .application import COST_HEADER, KEY_HEADER, ranch_of
from .options import check_cost, check_key
from .producer import Call, enqueue
from .tickets import CLAIMED
from .worker import claims_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery_toolkit_core.celery.deliveries import Delivery
    from celery_toolkit_core.celery.messages import StoredMessage

    from .task import RanchTask

#: A queue's woken tasks come through a queue of this name, beside it.
WAKE_SUFFIX = ".wake"


class BacklogGate(Gate):
    """Lets only claimed messages of a client proceed; one that came without a ticket goes into the backlog.

    So what was sent by name, or woken by another control, has its turn like all others.
    """

    rank = TURN

    def __init__(self, task: RanchTask) -> None:
        self._task = task

    def __call__(self, delivery: Delivery, proceed: Callable[[], None]) -> None:
        """Proceed, or enqueue and hand back."""
        key = delivery.message.headers.get(KEY_HEADER)
        if key is None or CLAIMED in delivery.marks:
            proceed()
            return
        ranch, options = ranch_of(self._task.app), self._task.ranch_options
        try:
            call = Call(
                check_key(key),
                check_cost(COST_HEADER, delivery.message.headers.get(COST_HEADER, 1.0)),
                None,
                options.weight_function is not None,
                admission="back",
            )
        except InvalidParameter:
            proceed()  # Not a key of ours: the message is an ordinary one.
            return
        channel: Any = delivery.message.channel
        tag = delivery.message.delivery_tag
        # kombu's own transports keep the tag over a redelivery: the same message is then recognised.
        entry = digest(tag) if isinstance(tag, str) else None
        driver_type = channel.connection.client.transport.driver_type
        address = enqueue(ranch, _without_wake(delivery), call, driver_type, entry)
        if address is not None:
            claims_of(ranch).ticket_for(address)
        delivery.hand_back()


def _without_wake(delivery: Delivery) -> StoredMessage:
    """The message as though it had come from the queue proper: what another control has woken comes from beside it."""
    stored = delivery.stored
    queue = stored.routing_key.removesuffix(WAKE_SUFFIX)
    if stored.exchange or queue == stored.routing_key or not delivery.consumer.task_consumer.consuming_from(queue):
        return stored
    return replace(stored, routing_key=queue)
