"""Starting a worker of one pool, and a page for people who look at it."""

from __future__ import annotations

from importlib.util import find_spec
from socket import AF_INET, SO_REUSEADDR, SOCK_STREAM, SOL_SOCKET, socket
from typing import TYPE_CHECKING, Any

from celery.utils.nodenames import default_nodename, host_format

from .apps import PoolRegistry
from .errors import NodeTaken, PortTaken, ShowcaseError, WrongPool
from .presets import apply_presets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery import Celery

    from .tasks import Pool


def run_worker(app: Celery, pool: Pool, name: str | None, options: Sequence[str]) -> None:
    """Be a worker of `pool` until it ends; it consumes the queue of that name, with the settings of the pool.

    Args:
        app: The application: one of our two for workers, or any other.
        pool: ``"heavy"`` or ``"light"``.
        name: Node name, by default ``POOL@HOST``.
        options: More options of ``celery worker``.

    Raises:
        WrongPool: The application is for workers of the other pool.
        NodeTaken: A worker of this name is at work.
        kombu.exceptions.OperationalError: The broker is away.
    """
    # Not app.tasks: that would finalise an application before its modules are imported.
    registry = app._tasks  # type: ignore[attr-defined]  # not in the stubs
    own = registry.pool if isinstance(registry, PoolRegistry) else None
    if own not in (None, pool):
        raise WrongPool(
            f"this application runs {own} tasks only; give the {pool} application, or one that knows all tasks",
            pool=pool,
        )
    apply_presets(app, pool=pool)
    node = host_format(default_nodename(name or f"{pool}@%h"))
    with app.connection_for_write() as connection:
        connection.ensure_connection(max_retries=1)
        if app.control.ping(destination=[node], timeout=1.0, connection=connection):
            raise NodeTaken(f"a worker {node} is at work already; give another one --name", node=node)
    queues: list[str] = [] if own else ["-Q", pool]
    app.worker_main(["worker", "-n", node, *queues, *options])


def run_flower(app: Celery, port: int, address: str, options: Sequence[str]) -> None:
    """Be Flower until interrupted.

    Raises:
        ShowcaseError: It is not installed.
        PortTaken: Something else listens there.
    """
    if find_spec("flower") is None:
        raise ShowcaseError("Flower is not installed: pip install celery-toolkit-showcase-presets[flower]")
    refuse_taken(address, port)
    start: Any = app.start
    start(["flower", f"--port={port}", f"--address={address}", *options])


def refuse_taken(address: str, port: int) -> None:
    """Say in one sentence what would be a traceback later.

    Raises:
        PortTaken: Something else listens there.
    """
    with socket(AF_INET, SOCK_STREAM) as trial:
        trial.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
        try:
            trial.bind((address, port))
        except OSError as error:
            raise PortTaken(
                f"port {port} of {address} cannot be had ({error.strerror}); give another one with --port", port=port
            ) from error
