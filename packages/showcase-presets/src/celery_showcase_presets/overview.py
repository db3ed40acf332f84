"""Who is there: the broker, and the workers that answer."""

from __future__ import annotations

import warnings
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from celery_toolkit_core.connection import mask

from .dead_letters import is_rabbitmq

if TYPE_CHECKING:
    from celery import Celery


def broker_of(app: Celery) -> str:
    """Name, version and address of the broker.

    Raises:
        kombu.exceptions.OperationalError: It is away.
    """
    with app.connection_for_read() as connection:
        connection.ensure_connection(max_retries=1)
        channel: Any = connection.default_channel
        if connection.transport.driver_type == "redis":
            information = channel.client.info("server")
            kind = information.get("server_name", "redis")
            name = f"{kind} {information.get(f'{kind}_version') or information['redis_version']}"
        elif is_rabbitmq(app):
            told = channel.connection.server_properties
            name = f"{told.get('product')} {told.get('version')}"
        else:
            name = str(connection.transport.driver_name)
        return f"{name} at {mask(connection.as_uri())}"


def answers_of(
    app: Celery, command: str, timeout: float, limit: int | None = None, **arguments: Any
) -> list[tuple[str, Any]]:
    """What each worker answers to a command of remote control; a node name stands as often as workers bear it.

    Args:
        app: The application.
        command: The command.
        timeout: Seconds to wait for the next answer.
        limit: How many answers are enough.
        **arguments: Of the command.
    """
    with warnings.catch_warnings():
        # Celery warns of two workers with one name, and shows one of them; we count them.
        warnings.simplefilter("ignore")
        replies = app.control.broadcast(command, arguments, reply=True, timeout=timeout, limit=limit) or []
    return sorted(((node, answer) for reply in replies for node, answer in reply.items()), key=itemgetter(0))


def workers_of(app: Celery, timeout: float) -> list[dict[str, Any]]:
    """Each worker that answers, and the queues that it consumes."""
    return [
        {"worker": node, "queues": sorted(queue["name"] for queue in answer)}
        for node, answer in answers_of(app, "active_queues", timeout)
        if isinstance(answer, list)
    ]
