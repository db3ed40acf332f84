"""The settings, each with its reason, and `apply_presets`, which gives them to an application."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from celery.app.defaults import NAMESPACES as _KNOWN
from celery.app.defaults import flatten
from kombu import Exchange, Queue

from celery_toolkit_core.errors import InvalidParameter
from celery_toolkit_core.parameters import nearest, one_of, seconds

from .dead_letters import is_rabbitmq, settings_of
from .routes import preset_queue
from .sending import stamp_messages
from .tasks import HeavyTask, Pool

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["apply_presets"]

#: The queues of the presets; a worker pool consumes the one that bears its name.
POOLS: tuple[Pool, ...] = ("heavy", "light")

_COMMON: dict[str, Any] = {
    # Pickle runs whatever a message says.
    "task_serializer": "json",
    "result_serializer": "json",
    "event_serializer": "json",
    "accept_content": ["json"],
    "result_accept_content": ["json"],
    # Countdown and eta mean the same on every machine.
    "enable_utc": True,
    "timezone": "UTC",
    # Name, arguments, worker and retries stay with the result, for whoever looks into a failure.
    "result_extended": True,
    "result_expires": 24 * 3600,
    # Else one cut connection to the results fails a task that has not even begun: Celery notes that it starts. Twelve
    # attempts outlast a restart of some 5 s; whoever asks for a result hears of a server that is away in 10 s at most.
    "result_backend_always_retry": True,
    "result_backend_max_retries": 12,
    "result_backend_max_sleep_between_retries_ms": 2000,
    # Long tasks show as STARTED, not as PENDING.
    "task_track_started": True,
    # Events are what Flower and other monitors live on.
    "worker_send_task_events": True,
    "task_send_sent_event": True,
    # What has no route, beat's tasks among it, reaches a queue that somebody consumes.
    "task_default_queue": "light",
    # A server that comes up after its workers is not an error; one that goes away while bodies run means that their
    # messages come again, so that the first run had better end.
    "broker_connection_retry_on_startup": True,
    "worker_cancel_long_running_tasks_on_connection_loss": True,
    # A broker that is away is said to the caller within seconds.
    "broker_connection_timeout": 4.0,
    "task_publish_retry": True,
    "task_publish_retry_policy": {"max_retries": 5, "interval_start": 0, "interval_step": 0.2, "interval_max": 1.0},
    # A worker that fetches ahead keeps tasks away from idle ones; light workers do, for speed.
    "worker_prefetch_multiplier": 1,
    # Tasks that wait in memory for their eta go back to the queue at a soft shutdown, also of an idle worker.
    "worker_enable_soft_shutdown_on_idle": True,
    "worker_soft_shutdown_timeout": 10.0,
}

_BY_POOL: dict[Pool, dict[str, Any]] = {
    "heavy": {
        # A worker that fetches ahead keeps long tasks away from idle workers.
        "worker_prefetch_multiplier": 1,
        # Memory that a library has leaked goes back at the end of a child: after 50 tasks, or above 1 GB (in kB).
        "worker_max_tasks_per_child": 50,
        "worker_max_memory_per_child": 1_000_000,
        "worker_soft_shutdown_timeout": 60.0,
    },
    "light": {
        "worker_prefetch_multiplier": 4,
        "worker_max_tasks_per_child": 1000,
        "worker_max_memory_per_child": 300_000,
        # For tasks with no limit of their own: this pool fetches ahead, so that nobody may wait long behind another.
        "task_time_limit": 300.0,
    },
}

_REDIS_TRANSPORT: dict[str, Any] = {
    # A silent network ends in an error, not in a worker that waits for ever.
    "socket_connect_timeout": 5.0,
    "socket_timeout": 30.0,
    "socket_keepalive": True,
}


def apply_presets(app: Celery, *, pool: Pool | None = None, longest_task: float | None = None, **settings: Any) -> None:
    """Give `app` the preset settings; what the application has set itself stays.

    Call it after ``config_from_object``. Without a backend of its own, an application on a Redis broker gets the next
    database of that server for its results. The queues are of the broker's safest kind: quorum queues behind a topic
    exchange on RabbitMQ.

    Args:
        app: The application.
        pool: ``"heavy"`` or ``"light"`` adds the settings of such a worker.
        longest_task: Seconds that the longest task may run, if any runs longer than `HeavyTask` allows. The broker
            repeats what is not acknowledged by then, so all applications of one broker need the same number.
        **settings: Settings of Celery, and of heimdall, ranch and chain-router, that win over both.

    Raises:
        InvalidParameter: A setting that Celery does not have, an unknown `pool`, or a `longest_task` that is not a
            number of seconds above 0.
    """
    for name in settings:
        if name not in _SETTINGS and not name.startswith(_OF_THE_PIECES):
            raise InvalidParameter(name, settings[name], f"no such Celery setting{nearest(name, _SETTINGS)}")
    longest = seconds("longest_task", longest_task) if longest_task is not None else HeavyTask.time_limit
    # For tasks with no limit of their own: the visibility timeout rests on nothing running longer.
    # No soft one: Celery starts the clock of a hard limit when the soft one has passed, so that a longer soft limit for
    # all would switch off the hard limit of a task that has no soft one of its own.
    chosen = {**_COMMON, "task_time_limit": longest}
    if pool is not None:
        one_of("pool", pool, POOLS)
        chosen.update(_BY_POOL[pool])
    conf = app.conf
    conf.update(settings)
    broker = str(conf.broker_url or "amqp://")
    chosen["task_queues"] = _queues(app)
    # What an earlier call has set is ours: the settings of a pool go above those of no pool.
    ours: set[str] = app.__dict__.setdefault("_showcase_presets", set())
    for name, value in chosen.items():
        if name in ours or not _is_set(conf, name):
            conf[name] = value
            ours.add(name)
    if not conf.result_backend and (beside := _next_database(broker)):
        conf["result_backend"] = beside
    if "redis" in broker.partition(":")[0] or broker.startswith("sentinel"):
        transport = {"visibility_timeout": visibility_timeout(longest), **_REDIS_TRANSPORT}
        conf.broker_transport_options = {**transport, **(conf.broker_transport_options or {})}
    elif is_rabbitmq(app):
        # Without confirmation a message that the broker did not take looks sent.
        conf.broker_transport_options = {"confirm_publish": True, **(conf.broker_transport_options or {})}
    conf.task_routes = _with_preset_route(conf.task_routes)
    stamp_messages()


def visibility_timeout(longest: float) -> float:
    """Seconds after which Redis hands an unacknowledged message to another worker.

    A message waits in its worker for a retry's pause and for the bodies before it, then runs itself: twice the longest
    run and five minutes hold all of it, and an hour is the least.
    """
    return max(3600.0, 2 * longest + 300)


def _queues(app: Celery) -> tuple[Queue, ...]:
    if is_rabbitmq(app):
        # Celery's delayed delivery on quorum queues, which retries with a pause rest on, needs a topic exchange.
        exchange = Exchange("showcase", type="topic")
        # What the broker puts aside itself, a rejected message for one, joins the dead letters.
        kind = {"x-queue-type": "quorum", "x-dead-letter-exchange": settings_of(app).dead_letters_queue}
        return tuple(Queue(name, exchange, routing_key=name, queue_arguments=kind) for name in POOLS)
    return tuple(Queue(name, Exchange(name, type="direct"), routing_key=name) for name in POOLS)


def _is_set(conf: Any, name: str) -> bool:
    # The last map holds Celery's own defaults. Settings.value_set_for() overlooks namespaces before Celery 5.7.
    return any(key in layer for layer in conf.maps[:-1] for key in conf._to_keys(name))


def _next_database(broker: str) -> str | None:
    parts = urlsplit(broker)
    if parts.scheme not in ("redis", "rediss") or "," in broker or ";" in broker:
        return None
    database = parts.path.strip("/") or "0"
    return urlunsplit(parts._replace(path=f"/{int(database) + 1}")) if database.isdigit() else None


def _with_preset_route(routes: Any) -> list[Any]:
    # Last, so that every route of the application comes first; once, however often the presets are applied.
    own = list(routes) if isinstance(routes, (list, tuple)) else [routes] if routes else []
    return own if preset_queue in own else [*own, preset_queue]


# Each of these checks its own settings when a worker starts.
_OF_THE_PIECES = ("chain_router_", "heimdall_", "ranch_", "showcase_", "toolkit_")
_SETTINGS = frozenset(dict(flatten(_KNOWN)))
