"""`GatedTask`: the base of tasks whose messages pass gates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import Task
from celery.exceptions import Reject
from kombu.exceptions import OperationalError

from ..errors import RedisUnavailable
from .deliveries import Delivery, forget_dropped

if TYPE_CHECKING:
    from celery import Celery
    from kombu.message import Message

    from .gates import Gate

    _Task = Task[Any, Any]  # generic in the stubs only
else:
    _Task = Task


#: What is raised where a message is sent while a server is away.
_AWAY = (OperationalError, RedisUnavailable, ConnectionError)


class GatedTask(_Task):
    """Abstract base of tasks whose messages pass gates; the order of several such bases does not matter."""

    abstract = True

    def gates(self, consumer: Any) -> list[Gate]:
        """The gates of this task in this worker: ``[*super().gates(consumer), MyGate(...)]``."""
        return []

    def retry(self, *args: Any, **options: Any) -> Any:
        """Like Celery's; but a task whose retry cannot be sent, because a server is away, comes again as it is.

        Celery gives such a task up, also one that is acknowledged late: its message would be lost with it.

        Raises:
            Retry: The retry is sent.
            Reject: It could not be sent. Of a task that is acknowledged early nothing is left to come again.
        """
        try:
            return super().retry(*args, **options)
        except Reject as reject:
            reason, *_ = reject.args
            if isinstance(reason, _AWAY):
                raise Reject(reason, requeue=True) from reject
            raise

    def start_strategy(self, app: Celery, consumer: Any, **options: Any) -> Any:
        """Compose the gates, sorted by rank, around the strategy that the task would have without them."""
        strategy = super().start_strategy(app, consumer, **options)
        forget_dropped(consumer)
        gates = sorted(self.gates(consumer), key=lambda gate: gate.rank)
        if not gates:
            return strategy

        def gated(message: Message, payload: Any, ack: Any, reject: Any, callbacks: Any, **extra: Any) -> None:
            if "task" not in message.headers or "id" not in message.headers:
                # Message protocol 1 has nothing in its headers that gates could read.
                strategy(message, payload, ack, reject, callbacks, **extra)
                return
            delivery = Delivery.of(message) or Delivery(message, payload, ack, reject, callbacks, consumer)
            delivery.pass_gates(gates, strategy)

        return gated
