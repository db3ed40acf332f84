"""Confirmations of published messages, sent by a thread so that no caller waits for them."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, NamedTuple

from celery_toolkit_core.connection import DRIVER_ERRORS
from celery_toolkit_core.errors import ToolkitError
from celery_toolkit_core.log import event

if TYPE_CHECKING:
    from .store import Store

logger = logging.getLogger(__name__)

#: Seconds without work after which the thread ends.
IDLE = 5.0
#: Seconds in which confirmations gather for one round trip, and how many go into one; short beside a reservation.
GATHER, BATCH = 0.05, 500
#: Seconds between two tries while Redis is away, and for how long. A reservation that has ended is confirmed all the
#: same, unless another task has the key by then.
PAUSE, PATIENCE = 0.5, 60.0
#: Seconds that a process gives the thread at its own end.
AT_EXIT = 2.0


class Job(NamedTuple):
    """One confirmation: where, of which lock and task, the number of its attempt, and until when it is tried."""

    store: Store
    lock: str
    task_id: str
    attempt: int
    until: float


_guard = threading.Lock()
_todo: SimpleQueue[Job | None] = SimpleQueue()
_thread: threading.Thread | None = None


def confirm_soon(store: Store, lock: str, task_id: str, attempt: int) -> None:
    """Confirm a reservation from a thread of this process.

    When the process dies first, the reservation ends after `store.RESERVATION` seconds; the worker then takes the key
    anew, or finds it taken and treats the message as the duplicate that it has become.
    """
    global _thread
    with _guard:
        _todo.put(Job(store, lock, task_id, attempt, time.monotonic() + PATIENCE))
        if _thread is None:
            _thread = threading.Thread(target=_work, name="heimdall-confirmations", daemon=True)
            _thread.start()


def _work() -> None:
    global _thread
    ending = False
    while not ending:
        try:
            jobs = [_todo.get(timeout=IDLE)]
        except Empty:
            with _guard:
                if _todo.empty():
                    _thread = None
                    return
            continue
        if jobs[0] is not None:
            time.sleep(GATHER)
        with suppress(Empty):
            while len(jobs) < BATCH:
                jobs.append(_todo.get_nowait())
        ending = None in jobs
        by_store: dict[Store, list[Job]] = {}
        for job in jobs:
            if job is not None:
                by_store.setdefault(job.store, []).append(job)
        failed = [job for store, some in by_store.items() if not _confirm(store, some) for job in some]
        if failed and not ending:
            time.sleep(PAUSE)
            for job in failed:
                if time.monotonic() < job.until:
                    _todo.put(job)


def _confirm(store: Store, jobs: list[Job]) -> bool:
    """Whether it is over: done, or not to be tried again."""
    try:
        store.run("confirm", [job.lock for job in jobs], [word for job in jobs for word in (job.task_id, job.attempt)])
    except (ToolkitError, *DRIVER_ERRORS) as error:
        event(logger, logging.WARNING, "confirmation_failed", locks=len(jobs), error=str(error))
        return False
    except Exception:  # the thread serves all callers and must outlive one odd answer
        logger.exception("%d confirmations failed", len(jobs))
    return True


def _finish() -> None:
    thread = _thread
    if thread is not None:
        _todo.put(None)
        thread.join(AT_EXIT)


def _forget() -> None:
    # After a fork the thread is the parent's, and so are the confirmations that were waiting.
    global _guard, _thread, _todo
    _guard, _thread, _todo = threading.Lock(), None, SimpleQueue()


os.register_at_fork(after_in_child=_forget)
atexit.register(_finish)
