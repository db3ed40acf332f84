"""The destination in the options of a call: chosen by the caller, or put there by Celery's ``retry``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .mark import Mark

#: What a caller names instead of a queue.
_BY_EXCHANGE = "(an exchange or a routing key)"


def chosen_in(options: Mapping[str, Any]) -> str:
    """The name of the chosen queue, words in brackets for another destination, or nothing."""
    queue = options.get("queue")
    if queue is not None:
        return str(getattr(queue, "name", queue))
    return _BY_EXCHANGE if options.get("exchange") or options.get("routing_key") else ""


def is_origin(
    mark: Mark | None, chosen: str, options: Mapping[str, Any], task: Any, companions: Sequence[str] = ()
) -> bool:
    """Whether the destination is where the router itself had sent the message of this mark: so does ``retry``.

    Args:
        mark: The mark among the headers.
        chosen: What `chosen_in` said.
        options: The options of the call.
        task: The task, where it is known.
        companions: Endings of further queues of that worker; another package may have taken the message there.
    """
    if mark is None or mark.key is None:
        return False
    if chosen != _BY_EXCHANGE:
        return chosen == mark.queue or chosen in [mark.queue + ending for ending in companions]
    # The queue was declared with an exchange of its own: a retry then names that exchange instead of the queue.
    queue = None if task is None else task.app.amqp.queues.get(mark.queue)
    exchange = options.get("exchange")
    return (
        queue is not None
        and getattr(exchange, "name", exchange) == queue.exchange.name
        and options.get("routing_key") == queue.routing_key
    )


def drop_destination(options: dict[str, Any]) -> None:
    """Forget where a retry was to go; what the router then says counts."""
    for option in ("queue", "exchange", "routing_key", "exchange_type"):
        options.pop(option, None)


def declare(worker: str, app: Any) -> None:
    """Make a worker's queue known to an application that has ``task_create_missing_queues = False``."""
    queues = app.amqp.queues
    if worker not in queues and not queues.create_missing:
        queues.add(queues.new_missing(worker))
