"""The two task bases: heavy work is tried four times, light work until it succeeds."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from celery.utils.log import get_task_logger

from celery_toolkit_core.celery.gated_task import GatedTask
from celery_toolkit_core.errors import InvalidParameter
from celery_toolkit_core.log import event
from celery_toolkit_core.parameters import count, positive

from .undertaker import gates_of

if TYPE_CHECKING:
    from celery_toolkit_core.celery.deliveries import Gate

__all__ = ["HeavyBase", "HeavyTask", "LightTask", "Pool"]

Pool = Literal["heavy", "light"]

logger = get_task_logger(__name__)


def _check_options(cls: type[PresetTask]) -> None:
    if len({vars(base)["pool"] for base in cls.__mro__ if "pool" in vars(base)}) > 1:
        raise InvalidParameter("base", cls.__name__, "a task runs in one pool: take HeavyTask or LightTask")
    # Celery turns these into int() silently, or fails with a TypeError at the first retry.
    if cls.max_retries is not None:
        count("max_retries", cls.max_retries, least=0)
    count("retry_backoff_max", cls.retry_backoff_max)
    if not isinstance(cls.retry_backoff, bool):
        positive("retry_backoff", cls.retry_backoff, remedy="give True, or the first pause in seconds")
    count("max_kills", cls.max_kills)
    if cls.reject_on_worker_lost:
        raise InvalidParameter(
            "reject_on_worker_lost", True, "it counts nothing; set max_kills, after which a killed task has failed"
        )
    hard, soft = cls.time_limit, cls.soft_time_limit
    if hard is not None:
        positive("time_limit", hard)
    if soft is not None:
        positive("soft_time_limit", soft)
        if hard is not None and soft >= hard:
            raise InvalidParameter("soft_time_limit", soft, f"stay below time_limit, which is {hard}")


class PresetTask(GatedTask):
    """What both bases share: retries with backoff, late acknowledgement, one log event for each end."""

    abstract = True

    pool: ClassVar[Pool]

    # Whatever is retried for any exception must bear a repetition, so that a repetition after a killed worker costs
    # no new promise: the message is acknowledged when the body has ended.
    acks_late = True
    autoretry_for = (Exception,)
    retry_backoff = True
    #: Seconds; the longest pause between two attempts.
    retry_backoff_max = 60
    Request = "celery_showcase_presets.requests:PresetRequest"
    #: How often the process may die under the body until the task has failed; each time but the last is a retry.
    max_kills: ClassVar[int] = 3
    # Not left to the setting: the broker would deliver what kills its process again and again.
    reject_on_worker_lost = False
    #: The body bears to be repeated; `celery showcase doctor` asks for this mark on tasks with late acknowledgement.
    idempotent: ClassVar[bool] = True
    # Without jitter, all that failed together comes back together.
    retry_jitter = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _check_options(cls)

    def gates(self, consumer: Any) -> list[Gate]:
        """Those of other bases, one that sees a task die, and one that lets in what is replayed."""
        return [*super().gates(consumer), *gates_of(consumer.app)]

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """Log ``task_done`` at DEBUG."""
        self._log(logging.DEBUG, "task_done", task_id)
        super().on_success(retval, task_id, args, kwargs)

    def on_retry(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Log ``task_will_retry`` at WARNING."""
        self._log(logging.WARNING, "task_will_retry", task_id, exc)
        super().on_retry(exc, task_id, args, kwargs, einfo)

    def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Log ``task_failed`` at ERROR: no further attempt follows."""
        self._log(logging.ERROR, "task_failed", task_id, exc)
        super().on_failure(exc, task_id, args, kwargs, einfo)

    def _log(self, level: int, name: str, task_id: str, error: BaseException | None = None) -> None:
        fields: dict[str, Any] = {"task": self.name, "task_id": task_id, "retries": self.request.retries}
        if error is not None:
            # The type alone: an exception's text often quotes the arguments.
            fields["error"] = type(error).__name__
        event(logger, level, name, **fields)


class HeavyTask(PresetTask):
    """The base of long or hungry tasks: queue ``heavy``, at most 4 attempts.

    Any exception is retried 3 times, after a random pause of at most 1, 2 and 4 seconds (doubling, never above
    `retry_backoff_max`). The body has 30 minutes, then 60 seconds to clean up. All of it can be set per task::

        @shared_task(base=HeavyTask, max_retries=5, soft_time_limit=600, time_limit=660)
        def render(report_id): ...
    """

    abstract = True

    pool: ClassVar[Pool] = "heavy"
    max_retries = 3
    soft_time_limit = 30 * 60
    time_limit = 31 * 60


class LightTask(PresetTask):
    """The base of short tasks that must succeed in the end: queue ``light``, retried without limit.

    ``max_retries`` is None on the task itself. In ``retry_kwargs`` it would mean "the default", and that is 3. The
    body has 30 seconds, then 10 to clean up.
    """

    abstract = True

    pool: ClassVar[Pool] = "light"
    max_retries = None
    soft_time_limit = 30
    time_limit = 40


#: The name that earlier code uses.
HeavyBase = HeavyTask
