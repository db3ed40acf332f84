"""The lock of a unique task as the submitter sees it, and the helpers that celery-heimdall 1.0 has."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from celery.app.task import Context

from celery_toolkit_core import limits as core
from celery_toolkit_core import parameters
from celery_toolkit_core.errors import InvalidParameter, ToolkitError
from celery_toolkit_core.log import event
from celery_toolkit_core.shortcut import Words

from .calls import Call, ttl_of
from .confirmations import confirm_soon
from .errors import AlreadyQueuedError, LimitExceeded, TooFewReplicas
from .headers import KEY
from .options import Unique
from .store import RESERVATION, Store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery_toolkit_core.celery.messages import StoredMessage

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of an attempt to take a key.

    Attributes:
        holder: The id of the task that has it, or None when it is ours now.
        expires_in: Seconds until the next task is accepted anyway.
        provisional: The key is ours for `RESERVATION` seconds, or the number of the retry does not count yet, unless we
            confirm.
    """

    holder: str | None = None
    expires_in: float = 0.0
    provisional: bool = False

    def error(self) -> AlreadyQueuedError:
        """The error for a caller who wants one."""
        return AlreadyQueuedError(expires_in=self.expires_in, likely_culprit=self.holder)


#: By the number with which reserve.lua grants: whether the key was ours before, as more than a reservation.
_OURS = (Answer(), Answer(provisional=True))


class Lock:
    """One key of unique tasks.

    Args:
        store: Where it is kept.
        prefix: Parts the keys of tasks that never exclude each other.
        label: The key as the user knows it.
        task: The name of the task that asks.
        extends: Whether a second turn of the same task prolongs it.

    Attributes:
        key: The key of its hash.
    """

    __slots__ = ("extends", "key", "label", "prefix", "store", "task")

    def __init__(self, store: Store, prefix: str, label: str, task: str, *, extends: bool = True) -> None:
        self.store, self.prefix, self.label, self.task, self.extends = store, prefix, label, task, extends
        self.key = store.lock(prefix, label)

    @property
    def lane(self) -> str:
        """The key of the lane of those who wait for it."""
        return self.store.lane(self.prefix, self.label)

    def reserve(self, task_id: str, attempt: int, ttl: float, meanwhile: Callable[[], None] | None = None) -> Answer:
        """Take the key for a task that is about to be published: one round trip, in which `meanwhile` may be done."""
        who = _who_asks(_ms(RESERVATION), self.task, self.extends)
        try:
            args = (task_id, attempt, _ms(ttl), self.label, who)
            answer = self.store.run_replicated("reserve", (self.key,), args, meanwhile)
        except Exception as error:
            if isinstance(error, ToolkitError) and not isinstance(error, TooFewReplicas):
                raise
            # Taken, and of no use: too few have it, or what was done meanwhile failed. If it cannot be given back, it
            # ends by itself.
            with suppress(ToolkitError):
                self.cancel(task_id)
            raise
        if isinstance(answer, int):
            return _OURS[answer]
        return Answer(answer[0].decode(), answer[1] / 1000)

    def cancel(self, task_id: str) -> None:
        """Give an unconfirmed reservation back."""
        self.store.run("cancel", [self.key], [task_id])

    def around(self, task_id: str, answer: Answer, publish: Callable[[str], Any], attempt: int = 0) -> Any:
        """Publish under a reservation: confirm it afterwards, or give it back when the publish fails."""
        try:
            result = publish(task_id)
        except BaseException:
            if answer.provisional:
                # The publisher's error is what the caller must see; the reservation ends by itself in any case.
                with suppress(ToolkitError):
                    self.cancel(task_id)
            raise
        if answer.provisional:
            confirm_soon(self.store, self.key, task_id, attempt)
        return result


def lock_of(task: Any, label: str) -> Lock:
    """The lock of a task's key."""
    store = task.heimdall_store
    prefix = task.heimdall_config.lock_prefix or store.settings.lock_prefix
    unique = task.heimdall_config.unique
    return Lock(store, prefix, label, task.name, extends=unique is None or unique.until != "expiry")


def conflict_of(task: Any) -> str:
    """What a duplicate of the task gets."""
    options = task.heimdall_config
    if options.unique.on_conflict is not None:
        return str(options.unique.on_conflict)
    raises = options.unique_raises
    if raises is None:
        raises = task.heimdall_store.settings.unique_raises
    return "raise" if raises else "return"


def revoke(task: Any, task_id: str, holder: str, *, reply_to: str | None = None) -> None:
    """Give a duplicate that never runs its end: the state REVOKED, where its caller looks for a result."""
    # A result that travels as a message (rpc://) needs to be told where to.
    request = Context(id=task_id, correlation_id=task_id, reply_to=reply_to or task.app.thread_oid)
    try:
        task.backend.mark_as_revoked(
            task_id, f"duplicate of task {holder}", request, store_result=not task.ignore_result
        )
    except Exception as error:  # noqa: BLE001  # any backend's errors; the duplicate must end all the same
        event(logger, logging.WARNING, "duplicate_not_marked", task_id=task_id, error=repr(error))


def mark_as_retry(task: Any, request: Any, wait: float) -> None:
    """Give a task that tries again in about `wait` seconds the state RETRY, where its caller looks for a result."""
    reason = LimitExceeded(tuple(limit.name or task.name for limit in task.heimdall_config.limits), wait)
    try:
        if not task.ignore_result:
            task.backend.mark_as_retry(request.id, reason, request=request)
    except Exception as error:  # noqa: BLE001  # any backend's errors; the task must wait all the same
        event(logger, logging.WARNING, "retry_not_marked", task_id=request.id, error=repr(error))


def unique_key_for_task(task: Any, args: Sequence[Any], kwargs: dict[str, Any], *, prefix: str = "") -> str:
    """The key under which a call of the task is unique, with `prefix` before it.

    Raises:
        InvalidParameter: The key function gave something that is no key.
    """
    return prefix + Call(task, args, kwargs).key(task.heimdall_config.unique or Unique())


def republish(task: Any, message: StoredMessage, publish: Callable[[], Any]) -> str | None:
    """Send a message of a task again that has ended, such as a dead letter, under its own id.

    A late copy of a task that has ended is dropped, and that is what such a message looks like: where it was unique, it
    takes its key first, as a new call does.

    Args:
        task: The `HeimdallTask` that the message is for.
        message: What was kept of it.
        publish: Sends it.

    Returns:
        The id of the task that has the key, in which case nothing was sent; None when it was.

    Raises:
        RedisUnavailable: Our Redis did not answer; nothing was sent.
    """
    label, wanted = message.headers.get(KEY), task.heimdall_config.unique
    if not label or wanted is None:
        publish()
        return None
    lock = lock_of(task, label)
    answer = lock.reserve(message.task_id, 0, ttl_of(wanted, lock.store.settings))
    if answer.holder is None:
        lock.around(message.task_id, answer, lambda _: publish())
    return answer.holder


def acquire_lock(task: Any, key: str, timeout: float, *, task_id: str) -> None:
    """Take the key of a task by hand, for `timeout` seconds, in the name of `task_id`.

    Raises:
        AlreadyQueuedError: Another task has it.
    """
    lock = lock_of(task, parameters.text("key", key))
    answer = lock.reserve(parameters.text("task_id", task_id), 0, parameters.seconds("timeout", timeout))
    if answer.holder is not None:
        raise answer.error()
    lock.store.run("confirm", [lock.key], [task_id, 0])


def release_lock(task: Any, key: str) -> bool:
    """Free the key of a task by hand, whoever has it; False when nobody had.

    A body that runs goes on, but is told that its lock is lost.
    """
    store = task.heimdall_store
    return free(store, task.heimdall_config.lock_prefix or store.settings.lock_prefix, parameters.text("key", key))


def free(store: Store, prefix: str, label: str) -> bool:
    """Free a key, whoever has it; False when nobody had."""
    lock = Lock(store, prefix, label, "")
    return bool(store.run("free", [lock.key, lock.lane, store.parking[2]], [lane_of(lock.lane)]))


def rate_limited_countdown(task: Any, key: str, args: Sequence[Any], kwargs: dict[str, Any]) -> float:
    """Seconds until the task's limits would let a call start; 0 when it may start now. Takes nothing.

    Args:
        task: The task.
        key: What the limits are parted by instead of the task's own key; empty for its own.
        args: The call's positional arguments.
        kwargs: The call's arguments by name.

    Raises:
        InvalidParameter: The task has no limit.
    """
    store, options = task.heimdall_store, task.heimdall_config
    if not options.limits:
        raise InvalidParameter("task", task.name, "give a task that has a limit")
    demands = demands_of(task, Call(task, args, kwargs))
    if key:
        demands = [core.Demand(demand.limit, (key,), demand.cost) for demand in demands]
    found = core.Limiter(store.client, store.space).peek(demands)
    return max((state.retry_after if state.retry_after is not None else float("inf")) for state in found)


def demands_of(task: Any, call: Call) -> list[core.Demand]:
    """What a call wants of the task's limits."""
    store, options = task.heimdall_store, task.heimdall_config
    prefix = options.rate_limit_prefix or store.settings.rate_limit_prefix
    return call.demands(options.limits, prefix, store.settings.lease)


def lane_of(lane_key: str) -> str:
    """The name of a lane: the end of its key, which is a digest."""
    return lane_key.rpartition(":")[2]


@lru_cache(maxsize=1024)
def _who_asks(reservation_ms: int, task: str, extends: bool) -> Words:
    return Words(reservation_ms, task, 0 if extends else 1)


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
