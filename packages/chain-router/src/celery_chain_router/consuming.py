"""Queues that a worker's consumer takes up and drops while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


def take_up(consumer: Any, names: Sequence[str]) -> None:
    """Consume these queues, too.

    Not by Celery's ``add_task_queue``: it asks the broker, and writes a line, for each queue.
    """
    queues = consumer.app.amqp.queues
    for name in names:
        queue = queues[name] if name in queues or queues.create_missing else queues.new_missing(name)
        consumer.task_consumer.add_queue(queues.select_add(queue))
    consumer.task_consumer.consume()


def drop(consumer: Any, names: Sequence[str]) -> None:
    """Consume these queues no more, after a reconnect either."""
    consumer.app.amqp.queues.deselect(list(names))
    if consumer.task_consumer is not None:
        for name in names:
            consumer.task_consumer.cancel_by_queue(name)


def companions(consumer: Any, name: str) -> list[str]:
    """The further queues ``<name>.<something>`` that another package consumes beside one."""
    return [queue for queue in consumer.app.amqp.queues.consume_from if queue.startswith(f"{name}.")]
