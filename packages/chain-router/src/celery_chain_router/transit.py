"""Jobs on their way to a child of the prefork pool, when Celery clears the pool's cache.

At a shutdown and at a reconnect Celery forgets every job that no child has said to have accepted. One that a child has
already been sent runs all the same: its message would come back to the queue and run a second time, perhaps at the same
moment. So such jobs stay in the cache; what has not been sent is dropped, as Celery wants it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .entry import Entry


def flush(pool: Any, celerys_flush: Any, unaccepted: Iterable[Entry]) -> list[Entry]:
    """Clear the cache of Celery's ``TaskPool``, but for jobs of these entries that were sent.

    Args:
        pool: The pool.
        celerys_flush: Its own way to do so.
        unaccepted: Entries that were given to the pool, and that no child has accepted.

    Returns:
        Those that will not run.
    """
    inner = pool._pool
    sent, dropped = [], []
    for entry in unaccepted:
        job = _job_of(entry)
        if job is not None and job._job in inner._cache and _is_sent(inner, job):
            job._accepted = True
            sent.append((entry, job))
        else:
            dropped.append(entry)
    celerys_flush()
    for entry, job in sent:
        # The child will say so itself.
        job._accepted = False
        if job._job in inner._cache:
            # To core this is one whose body runs: it keeps the job over a reconnect.
            entry.delivery.pid = 0
            entry.delivery.keep_job()
        else:
            dropped.append(entry)
    return dropped


def _job_of(entry: Entry) -> Any:
    request = entry.delivery.request
    job = request._apply_result if request is not None else None
    return job() if job is not None else None  # the request holds it weakly


def _is_sent(inner: Any, job: Any) -> bool:
    if getattr(job, "_write_to", None) is None:
        return False
    writer = getattr(job, "_writer", None)
    return writer is None or writer() not in inner._active_writers
