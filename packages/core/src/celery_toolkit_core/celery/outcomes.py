"""How a task ends, as the worker's main process sees it: the hooks in Celery's request, and the word for each end."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

from billiard.einfo import ExceptionWithTraceback  # type: ignore[attr-defined]  # not in the stubs
from celery.exceptions import Ignore, Reject, Retry, Terminated, TimeLimitExceeded, WorkerLostError

from .messages import seconds_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Celery

#: How a delivery ended.
#:
#: ``requeued``: the broker will deliver the message again (rejected with requeue before it was acknowledged, or lost to
#: a broken connection or a shutdown before the body started). ``lost``: the child died under the body. ``timeout``: the
#: hard time limit. ``unknown``: this worker has no such task. ``rejected`` includes messages that Celery cannot read.
Outcome = Literal[
    "success",
    "failure",
    "retry",
    "ignored",
    "rejected",
    "requeued",
    "revoked",
    "expired",
    "terminated",
    "timeout",
    "lost",
    "unknown",
]

_OUTCOMES: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], Outcome], ...] = (
    (Retry, "retry"),
    (Reject, "rejected"),
    (Ignore, "ignored"),
    (Terminated, "terminated"),
    (TimeLimitExceeded, "timeout"),
    ((WorkerLostError, SystemExit, KeyboardInterrupt), "lost"),
)


def followed(base: type[Any]) -> type[Any]:
    """The subclass of Celery's request class `base` that tells ``self._delivery`` how it ends; made once per class."""
    # Not by a Task.Request of ours: `create_request_cls` redefines on_success without calling its base.
    known = base.__dict__.get("_followed")
    if known is not None:
        return known  # type: ignore[no-any-return]

    class FollowedRequest(base):  # type: ignore[misc]  # Celery makes the base at run time, one per task
        def on_accepted(self, pid: int, time_accepted: float) -> None:
            self._delivery.accept(pid)
            super().on_accepted(pid, time_accepted)

        def on_success(self, failed__retval__runtime: tuple[Any, ...], **options: Any) -> Any:
            failed, _, self._delivery.runtime = failed__retval__runtime
            try:
                return super().on_success(failed__retval__runtime, **options)
            finally:
                self._delivery.end("failure" if failed else "success")

        def on_failure(self, exc_info: Any, *args: Any, **options: Any) -> Any:
            self._is_ending = True
            self._delivery.error = exc_info
            try:
                return super().on_failure(exc_info, *args, **options)
            finally:
                self._delivery.end(outcome_of(exc_info.exception))

        def on_timeout(self, soft: bool, timeout: float) -> Any:
            if soft:
                return super().on_timeout(soft, timeout)
            self._is_ending = True
            try:
                return super().on_timeout(soft, timeout)
            finally:
                self._delivery.end("timeout")

        def reject(self, requeue: bool = False) -> Any:
            goes_back = requeue and not self.acknowledged
            answer = super().reject(requeue)
            if goes_back:
                self._delivery.end("requeued")
            elif not self.__dict__.get("_is_ending"):
                self._delivery.end("rejected")
            # else Celery rejects because the task failed (acks_on_failure_or_timeout=False): that is the outcome.
            return answer

        def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> Any:
            try:
                return super()._announce_revoked(reason, terminated, signum, expired)
            finally:
                self._delivery.end("expired" if expired else "terminated" if terminated else "revoked")

        def _announce_cancelled(self, *args: Any, **options: Any) -> Any:
            # A broken connection or a cold shutdown killed the child; only what is unacknowledged is delivered again.
            try:
                return super()._announce_cancelled(*args, **options)
            finally:
                if self.acknowledged:
                    self._delivery.end("terminated")
                else:
                    # The body may have ended just before: a cold shutdown still looks for such ends, and acknowledges.
                    self._delivery.presume("requeued")

        def _success_was_stored(self) -> Any:
            # Celery 5.7: the child died after its result was stored.
            stored = super()._success_was_stored()
            if stored:
                self._delivery.end("success")
            return stored

        def _retry_worker_lost(self, *args: Any) -> Any:
            # Celery 5.7: retry_on_worker_lost has sent the task anew.
            sent = super()._retry_worker_lost(*args)
            if sent:
                self._delivery.end("retry")
            return sent

    FollowedRequest.__name__ = FollowedRequest.__qualname__ = base.__name__
    base._followed = FollowedRequest
    return FollowedRequest


def outcome_of(error: BaseException) -> Outcome:
    """The word for the end of a body that this error ended, as the pool reports it."""
    if isinstance(error, ExceptionWithTraceback):
        error = error.exc
    for kinds, outcome in _OUTCOMES:
        if isinstance(error, kinds):
            return outcome
    return "failure"


def is_past(expires: Any, app: Celery) -> bool:
    """Whether a message's ``expires`` header lies in the past, read as Celery's request reads it."""
    with suppress(AttributeError, TypeError, ValueError):
        return expires is not None and seconds_until(expires, app) < 0
    return False


class Answer:
    """An acknowledgement or rejection that is noticed; in all else the promise that Celery made."""

    __slots__ = ("_notice", "_promise")

    def __init__(self, promise: Callable[..., Any], notice: Callable[..., None]) -> None:
        self._promise = promise
        self._notice = notice

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        answer = self._promise(*args, **kwargs)
        self._notice(*args, **kwargs)
        return answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._promise, name)
