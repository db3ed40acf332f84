"""Checks of the tasks: limits, retries, what may run twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .case import check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .case import Case

#: From this many seconds on a task is long: nothing should wait behind it in the same process.
LONG = 300.0


@check("visibility-timeout")
def visibility_timeout(case: Case) -> Iterator[str]:
    """A Redis broker hands what is not acknowledged to a second worker."""
    if not case.is_redis:
        return
    timeout = case.visibility_timeout
    for task in case.tasks:
        limit, pause = _limit(case, task) or 0.0, _longest_pause(task)
        if limit >= timeout or pause >= timeout:
            what = f"its time limit of {limit:g} s" if limit >= timeout else f"its pause of {pause:g} s before a retry"
            yield (
                f"visibility_timeout is {timeout:g} s and {task.name} may take longer ({what}): it is then run a "
                "second time while it runs; raise it in broker_transport_options of all applications"
            )


@check("visibility-timeouts-differ", looks=True)
def visibility_timeouts_differ(case: Case) -> Iterator[str]:
    """A worker repeats the messages of all others by its own timeout."""
    if not case.is_redis:
        return
    own = case.visibility_timeout
    for node, conf in case.confs.items():
        theirs = float((conf.get("broker_transport_options") or {}).get("visibility_timeout", 3600))
        if theirs != own:
            yield (
                f"worker {node} has a visibility_timeout of {theirs:g} s, this application one of {own:g} s: the "
                "shortest decides when everybody's running tasks are repeated; give all the same"
            )


@check("time-limits")
def time_limits(case: Case) -> Iterator[str]:
    """A task that hangs keeps its process for ever."""
    for task in case.tasks:
        if _limit(case, task) is None:
            yield f"{task.name} has no time_limit, and there is no task_time_limit: when it hangs, its process is lost"


@check("late-acknowledgement")
def late_acknowledgement(case: Case) -> Iterator[str]:
    """What is acknowledged late runs again when its worker is killed."""
    for task in case.tasks:
        if task.acks_late and not getattr(task, "idempotent", False):
            yield (
                f"{task.name} is acknowledged late, so it runs again when its worker is killed, and nothing says that "
                "it may: make it bear that and mark it with idempotent=True, or set acks_late=False"
            )


@check("endless-redelivery")
def endless_redelivery(case: Case) -> Iterator[str]:
    """The broker counts nothing."""
    for task in case.tasks:
        on_failure = getattr(task, "acks_on_timeout", None)
        on_timeout = task.acks_on_failure_or_timeout if on_failure is None else on_failure
        if task.acks_late and task.reject_on_worker_lost:
            yield (
                f"{task.name} has reject_on_worker_lost: a run that kills its process is delivered again and again; "
                "use HeavyTask or LightTask, which count"
            )
        if task.acks_late and on_timeout is False:
            yield f"{task.name} goes back to its queue at each time limit, without end; leave acks_on_timeout on"


@check("retries")
def retries(case: Case) -> Iterator[str]:
    """Retries without limit need a pause that grows, and grows to an end."""
    for task in case.tasks:
        asked: dict[str, Any] = getattr(task, "retry_kwargs", None) or {}
        if "max_retries" in asked and asked["max_retries"] is None:
            yield f"{task.name}: max_retries=None in retry_kwargs means 3; set it on the task itself"
        backoff = getattr(task, "retry_backoff", False)
        if task.max_retries is not None or not getattr(task, "autoretry_for", ()):
            continue
        if not backoff:
            yield f"{task.name} is retried for ever at a steady pace; set retry_backoff and retry_backoff_max"
        elif not getattr(task, "retry_backoff_max", 600):
            yield f"{task.name} is retried for ever with pauses that grow without cap; set retry_backoff_max"


@check("prefetch")
def prefetch(case: Case) -> Iterator[str]:
    """What a busy worker has fetched no idle one can run."""
    longest = max((_limit(case, task) or 0.0 for task in case.tasks), default=0.0)
    for where, multiplier in case.setting_everywhere("worker_prefetch_multiplier"):
        if multiplier == 0:
            yield f"worker_prefetch_multiplier is 0{where}: one worker fetches all there is; set 1"
        elif not where and multiplier > 1 and longest > LONG:
            yield (
                f"worker_prefetch_multiplier is {multiplier} and tasks may run {longest:g} s: short ones wait behind "
                "them while other workers idle; set 1, or give long tasks a pool of their own"
            )


@check("rate-limit", "advice")
def rate_limit(case: Case) -> Iterator[str]:
    """Celery's rate limit knows one worker."""
    for task in case.tasks:
        if task.rate_limit or case.conf.task_default_rate_limit:
            yield f"{task.name} has a rate_limit, which holds for each worker alone; heimdall limits over all of them"


@check("track-started", "advice")
def track_started(case: Case) -> Iterator[str]:
    """A long task that runs looks like one that waits."""
    for task in case.tasks:
        if (_limit(case, task) or 0.0) > LONG and not task.track_started:
            yield f"{task.name} may run long and shows as PENDING while it does; set task_track_started"


def _limit(case: Case, task: Any) -> float | None:
    own = task.time_limit or case.conf.task_time_limit
    return float(own) if own else None


def _longest_pause(task: Any) -> float:
    if getattr(task, "autoretry_for", ()) and getattr(task, "retry_backoff", False):
        return float(getattr(task, "retry_backoff_max", 600) or 0)
    return float(task.default_retry_delay or 0)
