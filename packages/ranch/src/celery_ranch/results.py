"""Results of tasks that end in the backlog: told to the backend, to links and to chords, as Celery would."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from celery.app.task import Context
from kombu.serialization import loads, prepare_accept_content

from celery_toolkit_core.celery.messages import StoredMessage

if TYPE_CHECKING:
    from celery import Celery

logger = logging.getLogger(__name__)


def tell_failed(app: Celery, task_id: str, message: bytes, error: Exception) -> None:
    """Store an error as the result of a task."""
    app.backend.mark_as_failure(task_id, error, request=_request_of(app, message))


def tell_revoked(app: Celery, message: bytes, why: str) -> None:
    """Store that a task is revoked; a message that cannot be read, and a backend that is away, are logged."""
    request = _request_of(app, message)
    if request is not None:
        try:
            app.backend.mark_as_revoked(str(request.id), why, request=request, store_result=not request.ignore_result)
        except Exception:
            # The task is gone already: whoever asked for that must not be told that it failed.
            logger.exception("The result of revoked task %s cannot be stored", request.id)


def _request_of(app: Celery, message: bytes) -> Context | None:
    try:
        stored = StoredMessage.from_bytes(message)
        accept = prepare_accept_content(app.conf.accept_content)
        _, _, embedded = loads(stored.body, stored.content_type, stored.content_encoding, accept=accept)
        own: dict[str, Any] = {
            "reply_to": stored.properties.get("reply_to"),
            "correlation_id": stored.properties.get("correlation_id"),
            "errbacks": embedded.get("errbacks"),
            "chord": embedded.get("chord"),
            "called_directly": False,
        }
        return Context(stored.headers, **own)
    except Exception:
        # Whatever is wrong with it, its id at least may be known elsewhere.
        logger.exception("A task that ended in the backlog cannot be read; its links and chord are not told")
        return None
