"""When the result backend of an application begins to listen for the result of a task that is being sent."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from celery.backends.redis import RedisBackend

from celery_toolkit_core.connection import server_name

if TYPE_CHECKING:
    from .application import Ranch


def listen_when_kept(ranch: Ranch) -> None:
    """Let a result backend on our own server listen for a task of ours after the backlog has it, not before.

    Celery subscribes first, and on a server that is away it tries that for 19 s, or for as long as the kernel does.
    The backlog asks the same server once, for 2 s. The order of the two is all that changes, and only for producers
    that say `listen_later`; a backend elsewhere keeps Celery's order.
    """
    backend: Any = ranch.app.backend
    if "on_task_call" in vars(backend) or not _is_redis(backend):
        return
    ours = server_name(ranch.backlog.client).rpartition("/")[0]
    listen = partial(type(backend).on_task_call, backend)  # not what another thread has put there meanwhile
    is_ours = server_name(backend.client).rpartition("/")[0] == ours
    backend.on_task_call = partial(_on_task_call, listen) if is_ours else listen


def _is_redis(backend: object) -> bool:
    return isinstance(backend, RedisBackend)


def _on_task_call(listen: Any, producer: Any, task_id: str) -> None:
    later = getattr(producer, "listen_later", None)
    if later is None:
        listen(producer, task_id)
    else:
        later(partial(listen, producer, task_id))
