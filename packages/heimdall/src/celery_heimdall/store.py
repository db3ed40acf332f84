"""Where heimdall keeps its state: one Redis, its keys and scripts, and the settings of the application."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from celery_toolkit_core.celery.configuration import redis_url_of
from celery_toolkit_core.celery.worker import warn_of_unknown_settings
from celery_toolkit_core.connection import DRIVER_ERRORS, connect, explain, server_name
from celery_toolkit_core.errors import InvalidParameter
from celery_toolkit_core.keys import KeySpace
from celery_toolkit_core.scripts import Scripts
from celery_toolkit_core.settings import read_settings
from celery_toolkit_core.shortcut import Words

from .errors import TooFewReplicas
from .settings import HeimdallSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celery import Celery

#: Seconds in which the replicas must have what was written, where the user asks for replicas.
REPLICA_WAIT = 1.0

#: Seconds from taking a key to the confirmation that the message was published.
RESERVATION = 10.0

_stores: WeakKeyDictionary[Any, dict[Any, Store]] = WeakKeyDictionary()
_settings: WeakKeyDictionary[Any, HeimdallSettings] = WeakKeyDictionary()
_lock = Lock()


class Store:
    """One Redis as heimdall uses it.

    Args:
        client: A client that answers bytes.
        settings: The application's settings.
    """

    def __init__(self, client: Any, settings: HeimdallSettings) -> None:
        self.client = client
        self.settings = settings
        if settings.min_replicas and hasattr(client, "nodes_manager"):
            raise InvalidParameter(
                "heimdall_min_replicas",
                settings.min_replicas,
                "set min-replicas-to-write on the cluster's nodes instead",
            )
        self.space = KeySpace(settings.namespace)
        scripts = Scripts(client, "celery_heimdall")
        self.run, self.tell, self.hear = scripts.run, scripts.tell, scripts.hear
        #: The keys that every script about waiting tasks begins with, in the order of parking.lua.
        self.parking = [self.space.key(kind) for kind in ("items", "bodies", "due", "held", "order", "specs")]
        #: The same for scripts, and what stands for the key of a lane or a lock where there is none.
        self.parking_words = Words(*self.parking)
        self.none = self.space.key("none")

    def run_replicated(
        self, name: str, keys: Sequence[str], args: Sequence[Any], meanwhile: Callable[[], None] | None = None
    ) -> Any:
        """Run a script whose effect must outlive a failover, if the user has asked for replicas; see `Scripts.run`.

        Raises:
            TooFewReplicas: It ran, but not enough replicas had it in time; give it back.
        """
        wanted = self.settings.min_replicas
        if not wanted:
            return self.run(name, keys, args, meanwhile=meanwhile)
        try:
            # Redis answers for what came over the same connection.
            with self.client.pipeline(transaction=False) as pipeline:
                self.run(name, keys, args, client=pipeline)
                pipeline.wait(wanted, round(REPLICA_WAIT * 1000))
                answer, found = pipeline.execute()
        except DRIVER_ERRORS as error:
            raise explain(error, self.client) from error
        if found < wanted:
            raise TooFewReplicas(server_name(self.client), wanted, found)
        return answer

    def lock(self, prefix: str, label: str) -> str:
        """The key of a lock."""
        return self.space.key("lock", prefix, label)

    def lane(self, prefix: str, label: str) -> str:
        """The key of the lane of those who wait for a lock."""
        return self.space.key("lane", prefix, label)

    def began(self, task_id: str) -> str:
        """The key that remembers that a woken task has begun."""
        return self.space.key("began", task_id)


def settings_of(app: Celery) -> HeimdallSettings:
    """The settings of an application, read at the first use and then kept; then it also warns of misspelt ones."""
    found = _settings.get(app)
    if found is None:
        warn_of_unknown_settings(app, "heimdall", HeimdallSettings)
        found = _settings[app] = read_settings(HeimdallSettings, "heimdall", app.conf.get)
    return found


def store_of(app: Celery, client: Any = None) -> Store:
    """The store of an application: of its configured Redis, or of the client that a task brings along."""
    with _lock:
        known = _stores.setdefault(app, {})
        name = None if client is None else id(client)
        if name not in known:
            known[name] = Store(connect_for(app) if client is None else client, settings_of(app))
        return known[name]


def connect_for(app: Celery) -> Any:
    """A client of the Redis that the application's configuration names."""
    return connect(redis_url_of(app, "heimdall"), parameter="heimdall_redis_url")


def stores(app: Celery) -> list[Store]:
    """All stores of an application that were used in this process."""
    with _lock:
        return list(_stores.get(app, {}).values())


def all_stores(app: Celery) -> list[Store]:
    """The stores of all tasks of an application, also of tasks that this process has not met yet."""
    for task in list(app.tasks.values()):
        options = getattr(task, "heimdall_config", None)
        if options is not None and options.active:
            _ = task.heimdall_store  # type: ignore[attr-defined]  # only HeimdallTask has active options
    return stores(app)
