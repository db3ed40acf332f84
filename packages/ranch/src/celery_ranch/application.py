"""What ranch keeps for one Celery application: its settings, its backlog, and how tickets are published."""

from __future__ import annotations

import logging
from threading import RLock
from typing import TYPE_CHECKING, Any

from kombu.exceptions import OperationalError
from kombu.utils import json

from celery_toolkit_core.celery.configuration import redis_url_of
from celery_toolkit_core.celery.forwarding import forwarded
from celery_toolkit_core.celery.messages import undelayed
from celery_toolkit_core.celery.worker import warn_of_unknown_settings
from celery_toolkit_core.connection import connect
from celery_toolkit_core.errors import InvalidParameter
from celery_toolkit_core.keys import KeySpace
from celery_toolkit_core.log import event

from .backlog import Backlog, queue_of
from .settings import RanchSettings, read_ranch_settings
from .ticket_office import publish_ticket

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from celery import Celery

    from celery_toolkit_core.celery.messages import StoredMessage

    from .claims import Claims
    from .entries import Tickets

logger = logging.getLogger(__name__)

#: The header by which a message names its client; whatever carries it belongs into that client's backlog.
KEY_HEADER = "ranch_key"
#: The header with the cost of the turn, if it is not the default.
COST_HEADER = "ranch_cost"

# A connection that broke while it lay in the pool is opened anew; a broker that is away is asked again later.
_RETRY_POLICY = {"max_retries": 1, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.1}

_lock = RLock()
# Where an application keeps its ranch: the two end together.
_ATTRIBUTE = "_celery_ranch"


class Ranch:
    """The ranch of one application; get it with `ranch_of`.

    Args:
        app: The Celery application.
    """

    def __init__(self, app: Celery) -> None:
        self.app = app
        self._argument: dict[str, Any] = {}
        self._settings: RanchSettings | None = None
        self._has_warned = False
        self._backlog: Backlog | None = None
        #: What this process has claimed, if it is a worker; see `celery_ranch.worker.claims_of`.
        self.claims: Claims | None = None

    def configure(self, config: Mapping[str, Any]) -> None:
        """Take the `config` argument of an `lru_task`; it holds for the whole application.

        Raises:
            InvalidParameter: Another task of the application said something else, or the backlog is in use already.
        """
        with _lock:
            for name, value in config.items():
                if self._argument.setdefault(name, value) != value:
                    raise InvalidParameter(
                        "config", {name: value}, "another task of this application has another value"
                    )
            self._settings = None

    @property
    def settings(self) -> RanchSettings:
        """The settings, read at the first use; then it also warns of misspelt ones, once."""
        with _lock:
            if self._settings is None:
                self._settings = read_ranch_settings(self.app, self._argument)
                if not self._has_warned:
                    warn_of_unknown_settings(self.app, "ranch", RanchSettings)
                    self._has_warned = True
            return self._settings

    @property
    def backlog(self) -> Backlog:
        """The backlog, connected at the first use."""
        with _lock:
            if self._backlog is None:
                client, wanted = _client(self.app, self.settings), self.settings.min_replicas
                if wanted and hasattr(client, "nodes_manager"):
                    remedy = "set min-replicas-to-write on the cluster's nodes instead"
                    raise InvalidParameter("ranch_min_replicas", wanted, remedy)
                self._backlog = Backlog(client, KeySpace(self.settings.redis_prefix))
            return self._backlog

    def publish_ticket(self, address: Address, producer: Any, **options: Any) -> None:
        """Publish one ticket: whoever receives it claims the fairest task that waits in its queue.

        Args:
            address: Where to.
            producer: A kombu producer.
            **options: Of `kombu.Producer.publish`: retry, declare, ...
        """
        publish_ticket(address, producer, **options)

    def issue(self, tickets: Iterable[Tickets]) -> None:
        """Publish the tickets that a script asked for.

        Raises:
            kombu.exceptions.OperationalError: The broker did not take them; idle workers will ask again.
        """
        wanted = [each for each in tickets if each.number > 0]
        if not wanted:
            return
        with self.app.producer_or_acquire() as producer, producer.connection._reraise_as_library_errors():
            for each in wanted:
                address = Address.from_bytes(each.address).of_today(self.app)
                for _ in range(each.number):
                    self.publish_ticket(address, producer, retry=True, retry_policy=_RETRY_POLICY)


class Address:
    """Where the messages of one queue are published.

    Args:
        exchange: The exchange's name; empty for the broker's default one.
        routing_key: The routing key.
        queue: The digest of the queue whose tasks its tickets claim, if that is another.
    """

    __slots__ = ("exchange", "queue", "routing_key")

    def __init__(self, exchange: str, routing_key: str, *, queue: str = "") -> None:
        self.exchange = exchange
        self.routing_key = routing_key
        self.queue = queue or queue_of(exchange, routing_key)

    @classmethod
    def of(cls, message: StoredMessage, app: Celery) -> Address:
        """Where a message's ticket goes: to the queue that the message is meant for, not to one that delays it."""
        meant = undelayed(message.routing_key) if message.exchange else message.routing_key
        if meant == message.routing_key:
            return cls(message.exchange, meant)
        # Celery's native delayed delivery, with quorum queues; the task waits with us, so its ticket must not.
        queues = app.amqp.queues.values()
        exchange = next((queue.exchange.name for queue in queues if queue.routing_key == meant), "")
        return cls(exchange, meant)

    def name(self, app: Celery) -> str:
        """The queue's name, as far as this application knows one: else where messages for it are published."""
        if not self.exchange:
            return self.routing_key
        known = app.amqp.queues.values()
        mine = (each for each in known if each.exchange.name == self.exchange and each.routing_key == self.routing_key)
        return next((str(each.name) for each in mine), f"{self.exchange}/{self.routing_key}")

    def of_today(self, app: Celery) -> Address:
        """Where its tickets go when they are published later than their tasks: not to a worker that is gone."""
        name = self.name(app)
        today, _ = forwarded(app, name, {})
        return self if today == name else Address("", today, queue=self.queue)

    def to_bytes(self) -> bytes:
        """For `Submission.address`."""
        return json.dumps([self.exchange, self.routing_key]).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Address:
        """What `to_bytes` wrote."""
        return cls(*json.loads(data))


def ranch_of(app: Celery) -> Ranch:
    """The ranch of an application, the same one each time."""
    app = getattr(app, "_get_current_object", lambda: app)()
    with _lock:
        found: Ranch | None = app.__dict__.get(_ATTRIBUTE)
        if found is None:
            found = app.__dict__[_ATTRIBUTE] = Ranch(app)
        return found


def issue_quietly(ranch: Ranch, tickets: Iterable[Tickets]) -> bool:
    """Like `Ranch.issue`; a broker that is away is logged and answered with False."""
    try:
        ranch.issue(tickets)
    except OperationalError as error:
        event(logger, logging.WARNING, "tickets_not_issued", error=type(error).__name__)
        return False
    return True


def _client(app: Celery, settings: RanchSettings) -> Any:
    url = redis_url_of(app, "ranch")
    options: dict[str, Any] = {"socket_connect_timeout": settings.redis_socket_connect_timeout}
    if settings.redis_use_ssl and url.startswith("redis://"):
        url = "rediss://" + url.removeprefix("redis://")
    if settings.redis_max_retries is not None:
        options["retry"] = _retry(settings.redis_max_retries)
    return connect(url, parameter="ranch_redis_url", timeout=settings.redis_socket_timeout, **options)


def _retry(times: int) -> Any:
    from redis.backoff import NoBackoff
    from redis.exceptions import ConnectionError as Broken
    from redis.retry import Retry

    return Retry(NoBackoff(), times, (Broken,))
