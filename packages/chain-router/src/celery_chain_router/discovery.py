"""Discovery: the router of an application, the Redis in which its membership is shared, and a worker that starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.signals import worker_init
from celery.utils.functional import maybe_evaluate

from celery_toolkit_core.celery.configuration import redis_url_of
from celery_toolkit_core.connection import connect
from celery_toolkit_core.errors import InvalidParameter, ToolkitError
from celery_toolkit_core.keys import KeySpace
from celery_toolkit_core.settings import read_settings

from .membership import Membership
from .settings import PREFIX, ChainRouterSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from .partitions import Partitions
    from .router import ChainRouter


def find_router(app: Any) -> ChainRouter | None:
    """The ChainRouter in ``task_routes``: alone, in a list, or by its import name; the first when there are several."""
    return next(iter(_routers(app)), None)


def _routers(app: Any) -> list[ChainRouter]:
    from .router import ChainRouter

    return [each for each in map(maybe_evaluate, app.amqp.routes) if isinstance(each, ChainRouter)]


def settings_of(app: Any) -> ChainRouterSettings:
    """The application's ``chain_router_*``.

    Raises:
        InvalidParameter: One of them cannot be meant.
    """
    return read_settings(ChainRouterSettings, PREFIX, app.conf.get)


def key_space(settings: ChainRouterSettings, partitions: Partitions | None = None) -> KeySpace:
    """Where the ring lives in Redis; workers that share out partitions are among themselves."""
    return KeySpace(settings.prefix, f"{settings.ring}.{partitions.prefix}" if partitions else settings.ring)


def membership_of(app: Any, partitions: Partitions | None = None) -> Callable[[], Membership] | None:
    """What connects to the shared membership; ``None`` when the application has no Redis or wants no discovery.

    Args:
        app: The application.
        partitions: The queues of partition mode.

    Raises:
        InvalidParameter: A setting cannot be meant.
    """
    settings = settings_of(app)
    if not settings.discovery:
        return None
    try:
        url = redis_url_of(app, PREFIX)
    except InvalidParameter:
        raise
    except ToolkitError:  # none of the four settings names a Redis
        return None
    return lambda: Membership(
        connect(url, parameter="chain_router_redis_url"), key_space(settings, partitions), lease=settings.lease
    )


@worker_init.connect(weak=False)
def on_worker_init(sender: Any, **_: Any) -> None:
    """Let a worker whose application has a router join the ring; nothing needs to be installed by hand.

    Celery logs what a signal's receiver raises and goes on; only ``SystemExit`` stops the worker.
    """
    try:
        routers = _routers(sender.app)
        if len(routers) > 1:
            remedy = "one application has one ChainRouter; give it a routing_key_extractor for tasks with other keys"
            raise InvalidParameter("task_routes", routers, remedy)
        if routers:
            # Here, because a producer needs nothing of a worker.
            from .worker import enter

            enter(sender, *routers)
    except ToolkitError as error:
        raise SystemExit(f"chain-router: {error}") from error
