"""`GatedTask`: the base of tasks whose messages pass gates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import Task

from .deliveries import Delivery, forget_dropped

if TYPE_CHECKING:
    from celery import Celery
    from kombu.message import Message

    from .gates import Gate

    _Task = Task[Any, Any]  # generic in the stubs only
else:
    _Task = Task


class GatedTask(_Task):
    """Abstract base of tasks whose messages pass gates; the order of several such bases does not matter."""

    abstract = True

    def gates(self, consumer: Any) -> list[Gate]:
        """The gates of this task in this worker: ``[*super().gates(consumer), MyGate(...)]``."""
        return []

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
