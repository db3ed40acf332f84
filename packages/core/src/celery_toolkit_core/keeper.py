"""The keeper: one thread of a process that renews its leases and runs its periodic jobs, some of them by election.

It is a plain daemon thread, so that it goes on while the process's event loop is stopped or busy; where gevent or
eventlet have patched `threading`, it is a greenlet. It knows no Celery.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from logging import ERROR, INFO, WARNING, getLogger
from threading import Condition, Thread, current_thread
from typing import TYPE_CHECKING
from uuid import uuid4

from redis.exceptions import RedisError

from . import parameters
from .errors import ToolkitError
from .leases import Held
from .log import event

if TYPE_CHECKING:
    from collections.abc import Callable

    from .leases import Leases

logger = getLogger(__name__)

#: How long the lease of the elected process lasts, in intervals of its job. The others look when it ends, so another
#: takes over at 1.5 intervals after a kill; half an interval is left for a late renewal.
TERM = 1.5


@dataclass(frozen=True, slots=True)
class Elected:
    """The office of the one process of all that runs a job.

    Args:
        leases: Where the office is held; its permits say how many processes run the job.
        name: The name of the office.
        token: Who this process is; the process id is added, so that a fork is somebody else.
    """

    leases: Leases
    name: str
    token: str = field(default_factory=lambda: uuid4().hex)

    def holds_for(self, seconds: float) -> float:
        """Take or keep the office for so many seconds; 0 when it is ours, else the seconds until it may be free."""
        answer = self.leases.acquire(self.name, self._own_token(), ttl=seconds)
        # At least a millisecond: an office that ends this very moment is not ours yet.
        return max(0.001, answer.remaining) if isinstance(answer, Held) else 0.0

    def resign(self) -> None:
        """Leave the office at once, if this process holds it."""
        self.leases.release(self.name, self._own_token())

    def _own_token(self) -> str:
        return f"{self.token}-{os.getpid()}"


class Job:
    """A periodic job of a keeper; made by `Keeper.every`."""

    def __init__(self, keeper: Keeper, interval: float, work: Callable[[], object], elected: Elected | None) -> None:
        self.interval = interval
        self.work = work
        self.elected = elected
        self.name = getattr(work, "__qualname__", None) or repr(work)
        self._keeper = keeper
        self._due = 0.0
        self._failures = 0
        self._is_in_office = False

    def soon(self, delay: float = 0.0) -> None:
        """Run at the latest `delay` seconds from now, and then again after each interval."""
        self._keeper._bring_forward(self, delay)

    def cancel(self) -> None:
        """Do not run any more; a run in progress is not waited for."""
        self._keeper._remove(self)

    def plan(self, now: float) -> None:
        """Set the next moment: whole intervals after the last one planned, so that no delay adds up."""
        missed = max(0, int((now - self._due) / self.interval))
        self._due += (missed + 1) * self.interval

    def perform(self) -> float | None:
        """Run once, unless another process is elected; then the seconds until the office may be free."""
        try:
            wait = self.elected.holds_for(TERM * self.interval) if self.elected else 0.0
            self._is_in_office = self.elected is not None and not wait
            if wait:
                return wait
            self.work()
        except Exception as error:
            self._failures += 1
            if _is_told(self._failures, self.interval):
                event(
                    logger,
                    ERROR if self._failures == 1 else WARNING,
                    "keeper_job_failed",
                    job=self.name,
                    error=repr(error),
                    failures=self._failures,
                    again_in=self.interval,
                )
            if self._failures == 1 and not isinstance(error, ToolkitError):
                logger.exception("The first failure of %s in full", self.name)
        else:
            if self._failures:
                event(logger, INFO, "keeper_job_recovered", job=self.name, failures=self._failures)
            self._failures = 0
        return None

    def resign(self) -> None:
        """Leave the office, where this process holds it; a server that is away lets it end by itself."""
        if self.elected and self._is_in_office:
            self._is_in_office = False
            try:
                self.elected.resign()
            except (ToolkitError, RedisError) as error:
                event(logger, WARNING, "keeper_resign_failed", job=self.name, error=repr(error))


def _is_told(failures: int, interval: float) -> bool:
    """Whether one more failure in a row is logged: the first, second, fourth, eighth, ..., and one each minute."""
    return failures & (failures - 1) == 0 or failures % max(1, round(60 / interval)) == 0


class Keeper:
    """One daemon thread for everything that a process has to do from time to time.

    Jobs run one after the other, the most overdue first; each must be short compared with the shortest interval. A job
    that raises is logged and tried again after its interval. After a fork the child has no thread until it asks for one
    with `start`.

    Args:
        name: The thread's name.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._jobs: list[Job] = []
        self._thread: Thread | None = None
        # Each start and stop makes a new one; a thread of an older generation ends itself.
        self._generation = 0
        self._pid = os.getpid()
        self._condition = Condition()

    def every(
        self, seconds: float, job: Callable[[], object], *, elected: Elected | None = None, at_once: bool = False
    ) -> Job:
        """Run `job` every `seconds`, from now on or from `start` on.

        Args:
            seconds: The interval, counted from start to start.
            job: What to do; it may add, hurry and cancel jobs of this keeper.
            elected: Of all processes that name the same office only the one that holds it runs the job. When it is
                killed, another takes over within two intervals.
            at_once: Whether the first run is now rather than after the first interval.

        Raises:
            InvalidParameter: `seconds` is not a finite number above 0.
        """
        made = Job(self, parameters.seconds("seconds", seconds), job, elected)
        condition = self._guard()
        with condition:
            made._due = time.monotonic() + (0.0 if at_once else made.interval)
            self._jobs.append(made)
            condition.notify()
        return made

    def start(self) -> None:
        """Start the thread, unless it runs already."""
        with self._guard():
            if self.is_running:
                return
            now = time.monotonic()
            for job in self._jobs:
                # What came due while nobody ran it runs once, not as often as it was missed.
                job._due = max(job._due, now)
            self._generation += 1
            self._thread = Thread(target=self._run, args=(self._generation,), name=self.name, daemon=True)
            self._thread.start()

    def stop(self, timeout: float = 5.0) -> bool:
        """End the thread after the job in progress, and leave every office; it may be started again.

        Args:
            timeout: Seconds to wait for the job in progress.

        Returns:
            Whether the thread has ended.
        """
        condition = self._guard()
        with condition:
            thread, self._thread = self._thread, None
            self._generation += 1
            condition.notify()
        if thread is not None and thread is not current_thread():
            thread.join(timeout)
        for job in tuple(self._jobs):
            job.resign()
        return thread is None or not thread.is_alive()

    @property
    def is_running(self) -> bool:
        """Whether this process has the thread."""
        return self._pid == os.getpid() and self._thread is not None and self._thread.is_alive()

    def _guard(self) -> Condition:
        # A fork may have copied the lock while a thread, which the child does not have, held it.
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._condition = Condition()
            self._thread = None
        return self._condition

    def _run(self, generation: int) -> None:
        while job := self._next(generation):
            wait = job.perform()
            if wait is not None:
                self._bring_forward(job, wait)

    def _next(self, generation: int) -> Job | None:
        with self._condition:
            while generation == self._generation:
                now = time.monotonic()
                job = min(self._jobs, key=lambda job: job._due, default=None)
                if job is not None and job._due <= now:
                    job.plan(now)
                    return job
                self._condition.wait(None if job is None else job._due - now)
        return None

    def _bring_forward(self, job: Job, delay: float) -> None:
        condition = self._guard()
        with condition:
            due = time.monotonic() + delay
            if due < job._due:
                job._due = due
                condition.notify()

    def _remove(self, job: Job) -> None:
        with self._guard():
            if job in self._jobs:
                self._jobs.remove(job)
        job.resign()
