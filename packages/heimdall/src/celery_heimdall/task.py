"""`HeimdallTask`: the base class that users give their tasks."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from celery import current_task, states
from celery.backends.base import DisabledBackend
from celery.result import AsyncResult
from kombu.utils.uuid import uuid

from celery_toolkit_core import parameters
from celery_toolkit_core.celery.gated_task import GatedTask
from celery_toolkit_core.celery.messages import seconds_until
from celery_toolkit_core.celery.patience import outlast
from celery_toolkit_core.errors import InvalidParameter, RedisError

from . import admission, contradictions, starting, unique, worker
from .calls import Call, ttl_of
from .claims import Refusal
from .errors import HeimdallError, LimitRefused
from .headers import ERROR, FENCE, HOLDER, JOIN, KEY, REFUSED, TOKEN, without_delivery
from .options import Options, check_names, check_signature, parse
from .producers import EarlyProducer
from .signals import task_deduplicated
from .store import connect_for, store_of
from .unique import acquire_lock, rate_limited_countdown, release_lock, unique_key_for_task

if TYPE_CHECKING:
    from datetime import timedelta

    from celery import Celery

    from celery_toolkit_core.celery.deliveries import Gate

    from .store import Store

__all__ = [
    "HeimdallTask",
    "acquire_lock",
    "current_fence",
    "rate_limited_countdown",
    "release_lock",
    "unique_key_for_task",
]


class HeimdallTask(GatedTask):
    """Base class of tasks that are unique, limited, or both.

    Give the options as the dict ``heimdall={...}``, or typed as ``unique=Unique(...)`` and ``limits=[...]``.

    A call in the same process (``task(...)``, ``task.apply()``, ``task_always_eager``) is neither locked nor limited
    and leaves nothing behind.

    Attributes:
        heimdall: The option dict.
        unique: `Unique`, instead of the dict.
        limits: `RateLimit` and `Concurrency` limits, taken all or none.
        heimdall_config: The options as heimdall has understood them.
    """

    abstract = True
    heimdall: ClassVar[dict[str, Any] | None] = None
    unique: ClassVar[Any] = None
    limits: ClassVar[Any] = None
    heimdall_config: ClassVar[Options] = Options()

    def __init_subclass__(cls, **extra: Any) -> None:
        super().__init_subclass__(**extra)
        name = str(cls.name or cls.__name__)
        try:
            check_names(vars(cls))
            cls.heimdall_config = options = parse(cls.heimdall, cls.unique, cls.limits)
            contradictions.refuse(cls, options)
        except InvalidParameter as error:
            # Celery makes tasks late: the traceback does not show where this one is declared.
            raise InvalidParameter(error.parameter, error.value, f"{error.remedy}; task {name}") from None
        run = cls.__dict__.get("run")
        if run is not None:
            function = run.__func__ if isinstance(run, staticmethod) else run
            check_signature(options, name, function, bound=not isinstance(run, staticmethod))

    @classmethod
    def on_bound(cls, app: Celery) -> None:
        """Prepare the worker that will run the task; nothing happens elsewhere."""
        super().on_bound(app)
        if cls.heimdall_config.active:
            worker.install(app)

    def setup_redis(self) -> Any:
        """The client of the Redis that keeps this task's locks and limits; override it to bring your own.

        Tasks share locks and limits only when they share the client's server. It must answer bytes.
        """
        return connect_for(self.app)

    @property
    def heimdall_store(self) -> Store:
        """Where this task's state is kept."""
        store: Store | None = self.__dict__.get("_heimdall_store")
        if store is None:
            own = type(self).setup_redis is not HeimdallTask.setup_redis
            store = self.__dict__["_heimdall_store"] = store_of(self.app, self.setup_redis() if own else None)
        return store

    def apply_async(
        self,
        args: Any = None,
        kwargs: Any = None,
        task_id: str | None = None,
        producer: Any = None,
        link: Any = None,
        link_error: Any = None,
        shadow: str | None = None,
        **options: Any,
    ) -> Any:
        """Send the task, unless it is unique and its key is held; see Celery for the arguments.

        Returns:
            An ``AsyncResult``. Its attribute ``deduplicated`` is True when the call was a duplicate.

        Raises:
            AlreadyQueuedError: The key is held and the task asks for an error.
            InvalidParameter: The key function gave something that is no key.
            RedisUnavailable: Our Redis did not answer and ``heimdall_on_redis_error`` is ``raise``.
        """
        send = super().apply_async
        options["headers"] = headers = without_delivery(options.get("headers"))
        early = EarlyProducer(self.app, producer)

        def publish(task_id: str | None) -> Any:
            result = send(
                args, kwargs, task_id=task_id, producer=early.producer, link=link, link_error=link_error, shadow=shadow,
                **options,
            )  # fmt: skip
            result.deduplicated = False  # type: ignore[attr-defined]  # ours, on Celery's object
            return result

        wanted = self.heimdall_config.unique
        if wanted is None or self.app.conf.task_always_eager:
            return publish(task_id)
        attempt = options.get("retries") or 0
        label = headers.get(KEY) if attempt else None
        headers[KEY] = label = label or Call(self, args, kwargs).key(wanted)
        chosen, task_id = task_id is not None, task_id or uuid()
        lock = unique.lock_of(self, label)
        ttl = ttl_of(wanted, lock.store.settings)
        if attempt or wanted.until != "expiry":
            # A message that may not start yet keeps its key for as long as it waits on purpose.
            ttl += _delay(self.app, options)
        with early:
            try:
                answer = outlast(options, lock.reserve, task_id, attempt, ttl, early.take)
            except RedisError:
                if lock.store.settings.on_redis_error == "raise":
                    raise
                return publish(task_id)
            if answer.holder is None or attempt:
                return lock.around(task_id, answer, publish, attempt)
            composed = chosen or "chain" in options or bool(link or link_error)
            composed = composed or bool(options.get("group_id") or options.get("chord"))
            task_deduplicated.send(sender=self, task_id=task_id, holder=answer.holder)
            conflict = unique.conflict_of(self)
            if conflict == "join" or (composed and (conflict != "raise" or _in_worker())):
                headers[HOLDER] = answer.holder
                result = publish(task_id)
            elif conflict == "raise":
                raise answer.error()
            elif conflict == "ignore":
                unique.revoke(self, task_id, answer.holder)
                result = self.AsyncResult(task_id)
            else:
                result = self.AsyncResult(answer.holder)
            result.deduplicated = True
            return result

    def gates(self, consumer: Any) -> list[Gate]:
        """Heimdall's gate, behind those of other bases."""
        gates = super().gates(consumer)
        return [*gates, admission.HeimdallGate(self, consumer)] if self.heimdall_config.active else gates

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the body; in a worker, after the strict decision of the limits."""
        request = self.request
        if request.called_directly or request.is_eager or not self.heimdall_config.active:
            return super().__call__(*args, **kwargs)
        if refused := request.get(ERROR):
            raise LimitRefused(refused, task=self.name)
        if refusal := request.get(REFUSED):
            starting.refuse(self, request, Refusal(*refusal))
        if joined := request.get(JOIN):
            return _joined_result(self, *joined)
        token = request.get(TOKEN)
        if token is not None and self.heimdall_config.limits:
            self._start(token, args, kwargs)
        elif token is not None:
            starting.refuse_late(self, request, token)
        if holder := request.get(HOLDER):
            # The holder has ended without heimdall having seen how; without a result of it we do the work.
            result = _result_of(self.app, holder)
            if result is not None:
                return _shared(result)
        return super().__call__(*args, **kwargs)

    def only_after(self, key: str, seconds: float | timedelta) -> bool:
        """Whether a block of code may run now: True at most once in so many seconds, over all workers.

        Args:
            key: What the block is called.
            seconds: The time between two runs, counted from the one that was told True.
        """
        wait_ms = max(1, round(parameters.seconds("seconds", seconds) * 1000))
        store = self.heimdall_store
        name = store.space.key("only-after", parameters.text("key", key))
        return bool(store.client.set(name, 1, nx=True, px=wait_ms))

    def _start(self, token: str, args: Any, kwargs: Any) -> None:
        request: Any = self.request
        request.heimdall_claim = starting.start(self, request, token, Call(self, args, kwargs))


def current_fence() -> int | None:
    """The fence number of the lock under which the current task runs; None outside a unique task.

    It is higher than that of every earlier holder. Pass it to what you write to, and let that refuse a lower number
    than it has seen: then a worker that was frozen past its lease cannot overwrite what came after.
    """
    task = current_task
    fence = task.request.get(FENCE) if task else None
    return int(fence) if fence else None


def _joined_result(task: Any, holder: str, state: str) -> Any:
    result = _result_of(task.app, holder)
    if result is not None:
        return _shared(result)
    # How it ended is known all the same.
    if state == "failure":
        raise HeimdallError(f"task {holder}, which this one was joined to, failed", holder=holder)
    if task.ignore_result or isinstance(task.backend, DisabledBackend):
        return None
    raise HeimdallError(
        f"task {holder}, which this one was joined to, has succeeded, but its result is not there: forgotten, or "
        "the result backend is one that other processes cannot read, such as rpc://",
        holder=holder,
    )


def _result_of(app: Celery, holder: str) -> Any:
    """The result of a task that has ended and whose result is kept; else None."""
    result: Any = AsyncResult(holder, app=app)
    if isinstance(result.backend, DisabledBackend) or result.state not in (states.SUCCESS, states.FAILURE):
        return None
    return result


def _shared(result: Any) -> Any:
    if result.state == states.FAILURE:
        raise result.result
    return result.result


def _in_worker() -> bool:
    return bool(current_task) and not current_task.request.called_directly


def _delay(app: Celery, options: dict[str, Any]) -> float:
    countdown = options.get("countdown")
    if countdown:
        return max(0.0, float(countdown))
    eta = options.get("eta")
    return max(0.0, seconds_until(eta, app)) if isinstance(eta, datetime) else 0.0
