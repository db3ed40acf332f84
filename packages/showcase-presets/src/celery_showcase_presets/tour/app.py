"""The application of a tour, in the role that the environment names: ``publisher``, ``heavy``, ``light``, ``ring``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from celery import signals

from celery_chain_router import ChainRouter
from celery_showcase_presets import heavy_app, light_app, publisher_app
from celery_showcase_presets.routes import preset_queue

from .place import ROLE_VARIABLE, Place
from .trace import record

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Celery

_MAKE: dict[str, Callable[..., Celery]] = {
    "publisher": publisher_app,
    "heavy": heavy_app,
    "light": light_app,
    "ring": heavy_app,
}


def pool_first(name: str, *args: Any, **kwargs: Any) -> dict[str, str] | None:
    """All but the tasks of the ring go to the queue of their pool; the ring's go on to the router behind this one."""
    return None if name.startswith("ring.") else preset_queue(name, *args, **kwargs)


def make(role: str, place: Place) -> Celery:
    """The application for one role; all roles of a tour share server and prefix."""
    # A worker joins the ring when its application has the router, so that only those two have it who need it.
    routes: list[Any] = [pool_first, ChainRouter(routing_key="customer")] if role in ("publisher", "ring") else []
    prefixed = {"global_keyprefix": place.prefix}
    # On RabbitMQ the virtual host is ours.
    transport = {} if place.rabbitmq else prefixed
    return _MAKE[role](
        role,
        broker=place.rabbitmq or place.url,
        # The tour may run on somebody's server, where only the database in the URL is ours to use.
        backend=place.url,
        include=["celery_showcase_presets.tour.tasks"],
        broker_transport_options=transport,
        result_backend_transport_options=prefixed,
        task_routes=routes,
        showcase_prefix=f"{place.prefix}showcase",
        heimdall_namespace=f"{place.prefix}heimdall",
        ranch_redis_prefix=f"{place.prefix}ranch",
        chain_router_prefix=f"{place.prefix}chain-router",
        # A tour does not wait half a minute to believe that a worker is dead.
        chain_router_lease=3.0,
    )


@signals.worker_ready.connect(weak=False)
def _ready(sender: Any = None, **_: Any) -> None:
    record("ready", worker=sender.hostname.partition("@")[0])


app = make(os.environ.get(ROLE_VARIABLE, "publisher"), Place.from_environment())
