"""The task base of ranch and its short form `lru_task`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import current_task
from kombu.exceptions import OperationalError

from celery_toolkit_core.celery.gated_task import GatedTask
from celery_toolkit_core.errors import InvalidParameter, ToolkitError

from .application import COST_HEADER, KEY_HEADER, ranch_of
from .audits import status
from .clients import Clients
from .gate import BacklogGate
from .listening import listen_when_kept
from .options import TaskOptions, check_key, check_weight, delay_options
from .producer import BacklogProducer, Call, Dropped
from .profiles import check_tags
from .worker import install

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import timedelta

    from celery import Celery
    from celery.result import AsyncResult

    from celery_toolkit_core.celery.gates import Gate

    from .entries import Admission
    from .options import OnFull, WeightFunction


class RanchTask(GatedTask):
    """Abstract base of tasks that are shared out fairly between clients.

    A call that names a client (by `lru_delay`, ``lru_key=``, the task's option `lru_key`, or because it is sent by the
    body of a task that has a client) waits in that client's backlog until its fair turn; any other call is plain
    Celery.

    Attributes:
        lru_key: Name of the argument that holds the client's key, or a function of the call's arguments.
        lru_cost: What one turn costs: a number (1), a function of the call's arguments, or ``"runtime"``.
        weight_function: ``f(lru_key, metadata) -> weight``, asked for a client when it has just been served.
        max_backlog: Most tasks of one client that may wait; what was admitted once, such as a retry, always may.
        on_full: What becomes of one more: ``"raise"`` is `BacklogFull`; ``"block"`` waits in the caller until there is
            room, for at most ``ranch_block_timeout`` seconds; ``"drop"`` gives a result that is revoked.
    """

    abstract = True

    lru_key: str | Callable[..., Any] | None = None
    lru_cost: float | str | Callable[..., Any] | None = None
    weight_function: WeightFunction | None = None
    max_backlog: int | None = None
    on_full: OnFull = "raise"

    ranch_options: TaskOptions = TaskOptions()

    @classmethod
    def on_bound(cls, app: Celery) -> None:
        """Celery calls this when the task is bound to its application."""
        super().on_bound(app)
        cls.ranch_options = TaskOptions.of(cls)
        install(app)

    def gates(self, consumer: Any) -> list[Gate]:
        """The gates of this task; ranch's lets only what was claimed proceed."""
        return [*super().gates(consumer), BacklogGate(self)]

    def apply_async(
        self,
        args: Any = None,
        kwargs: Any = None,
        task_id: str | None = None,
        producer: Any = None,
        link: Any = None,
        link_error: Any = None,
        shadow: str | None = None,
        *,
        lru_key: str | int | None = None,
        lru_cost: float | str | None = None,
        lru_weight: float | None = None,
        headers: Mapping[str, Any] | None = None,
        connection: Any = None,
        **options: Any,
    ) -> AsyncResult[Any]:
        """Send the task; every option of Celery's `apply_async` means what it means there.

        Args:
            args: Positional arguments.
            kwargs: Arguments by name.
            task_id: Celery's own, as are the next four.
            producer: See there.
            link: See there.
            link_error: See there.
            shadow: See there.
            lru_key: The client.
            lru_cost: What this turn costs, instead of the task's `lru_cost`.
            lru_weight: A weight to keep for the client from now on; lower is served more often.
            headers: Custom headers.
            connection: See Celery.
            **options: See Celery.

        Raises:
            InvalidParameter: A key, cost or weight is not possible.
            PayloadTooLarge: The message has more than ``ranch_max_payload`` bytes.
            BacklogFull: The client has its limit waiting, or is drained (`ClientDraining`).
            RedisUnavailable: Our Redis is away.
            TooFewReplicas: Fewer replicas than ``ranch_min_replicas`` had it in time.
        """
        headers = dict(headers or {})
        weight = None if lru_weight is None else check_weight("priority_weight", lru_weight)
        call_args, call_kwargs = tuple(args or ()), dict(kwargs or {})
        options |= {"task_id": task_id, "link": link, "link_error": link_error, "shadow": shadow}
        key = self._client_of(lru_key, headers, call_args, call_kwargs)
        if key is None or self.app.conf.task_always_eager:
            if connection is not None:
                options["connection"] = connection
            return super().apply_async(args, kwargs, producer=producer, headers=headers, **options)
        given = lru_cost if lru_cost is not None else headers.get(COST_HEADER)
        cost = self.ranch_options.cost_of(given, call_args, call_kwargs)
        headers[KEY_HEADER] = key
        if lru_cost is not None:
            headers[COST_HEADER] = cost
        own = self.ranch_options
        admission = _admission(key, options)
        call = Call(key, cost, weight, own.weight_function is not None, own.max_backlog, own.on_full, admission)
        if connection is not None:
            producer = self.app.amqp.Producer(connection, auto_declare=False)
        ranch = ranch_of(self.app)
        listen_when_kept(ranch)
        try:
            with self.app.producer_or_acquire(producer) as real:
                standing_in = BacklogProducer(real, ranch, call, options)
                return super().apply_async(
                    args,
                    kwargs,
                    producer=standing_in,  # type: ignore[arg-type]  # stands in for one
                    headers=headers,
                    **options,
                )
        except Dropped as dropped:
            # Raised up to here, so that whatever else took something for this call gives it back.
            return self.AsyncResult(dropped.task_id)
        except OperationalError as error:
            # Celery wraps every connection error as the broker's; ours is about our own Redis.
            if isinstance(error.__cause__, ToolkitError):
                raise error.__cause__ from None
            raise

    def lru_apply_async(
        self, lru_key: str | int, args: Any = None, kwargs: Any = None, **options: Any
    ) -> AsyncResult[Any]:
        """`apply_async` for a client, with all of its options."""
        return self.apply_async(args, kwargs, lru_key=check_key(lru_key), **options)

    def lru_delay(
        self,
        lru_key: str | int,
        /,
        *args: Any,
        priority_weight: float | None = None,
        tags: Mapping[str, Any] | None = None,
        expiry: float | timedelta | None = None,
        **kwargs: Any,
    ) -> AsyncResult[Any]:
        """Send the task for a client.

        Args:
            lru_key: The client.
            *args: The task's arguments.
            priority_weight: A weight to keep for the client from now on; lower is served more often.
            tags: Tags to put on the client.
            expiry: Seconds after which the task is not to run any more; it is then reported as revoked.
            **kwargs: The task's arguments by name. A task whose own argument is called ``expiry``, ``tags`` or
                ``priority_weight`` is sent with `lru_apply_async`.

        Returns:
            The task's own result.
        """
        key = check_key(lru_key)
        options = delay_options(priority_weight, expiry)
        checked = check_tags(tags)
        if checked:
            self._clients.tag(key, checked)
        return self.apply_async(args, kwargs, lru_key=key, **options)

    def set_priority_weight(self, lru_key: str | int, weight: float) -> bool:
        """Set the weight of a client: 0.5 is served twice as often as 1.0. Its place in the line does not change."""
        return self._clients.set_weight(lru_key, weight)

    def add_tag(self, lru_key: str | int, name: str, value: Any) -> bool:
        """Put a tag on a client."""
        return self._clients.tag(lru_key, {name: value})

    def get_tagged_clients(self, tag: str, value: Any = None) -> list[str]:
        """The keys of the clients with this tag, whatever its value or with just that value."""
        return self._clients.tagged(tag, value)

    def set_custom_data(self, lru_key: str | int, name: str, value: Any) -> bool:
        """Keep something about a client, for weight functions."""
        return self._clients.set_custom(lru_key, name, value)

    def get_custom_data(self, lru_key: str | int) -> dict[str, Any]:
        """What `set_custom_data` has kept."""
        return self._clients.custom(lru_key)

    def get_client_metadata(self, lru_key: str | int) -> dict[str, Any]:
        """What is known of a client: lru_key, weight, last_execution, tags, custom_data, pending_tasks."""
        return self._clients.metadata(lru_key)

    def get_system_status(self) -> dict[str, Any]:
        """The backlog as a whole: initialized, storage_type, backlog_size, unique_lru_keys, health."""
        return status(ranch_of(self.app))

    @property
    def _clients(self) -> Clients:
        return Clients(self.app)

    def _client_of(
        self, given: Any, headers: dict[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> str | None:
        if given is not None:
            return check_key(given)
        if headers.get(KEY_HEADER) is not None:
            return check_key(headers[KEY_HEADER])
        key = self.ranch_options.key_of(self.run, args, kwargs)
        if key is None and current_task and ranch_of(self.app).settings.inherit_key:
            key = (current_task.request.headers or {}).get(KEY_HEADER)
        return key


def _admission(key: str, options: Mapping[str, Any]) -> Admission:
    if options.get("retries"):
        return "free"  # A retry was admitted with its first try; refused now it would be lost.
    inside = current_task and (current_task.request.headers or {}).get(KEY_HEADER) == key
    return "inside" if inside else "new"


def lru_task(
    app: Celery,
    config: Mapping[str, Any] | None = None,
    weight_function: WeightFunction | None = None,
    **task_options: Any,
) -> Callable[[Callable[..., Any]], Any]:
    """Decorator: a task of `app` that is shared out fairly between clients.

    Short for ``@app.task(base=RanchTask, ...)``.

    Args:
        app: The Celery application.
        config: Settings of ranch for the application, by their names without ``ranch_``.
        weight_function: ``f(lru_key, metadata) -> weight``.
        **task_options: Options of ``app.task``, and `lru_key`, `lru_cost`, `max_backlog`, `on_full`. With `base`, the
            task is of that base as well.

    Raises:
        InvalidParameter: An option or a setting is unknown or impossible.
    """
    if not hasattr(app, "task"):
        raise InvalidParameter("app", app, "give the application: @lru_task(app)")
    if config:
        ranch_of(app).configure(config)
    base = task_options.pop("base", None)
    if base is None:
        base = RanchTask
    elif not issubclass(base, RanchTask):
        base = type(f"Ranch{base.__name__}", (RanchTask, base), {"abstract": True, "__module__": base.__module__})
    if weight_function is not None:
        task_options["weight_function"] = staticmethod(weight_function)
    for name in ("lru_key", "lru_cost"):
        if callable(task_options.get(name)):
            task_options[name] = staticmethod(task_options[name])

    def decorate(function: Callable[..., Any]) -> Any:
        decorated: Any = app.task(base=base, **task_options)  # untyped in the stubs
        return decorated(function)

    return decorate
