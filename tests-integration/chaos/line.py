"""The slow line between the workers and the server, in a process of its own: it shall wait for nobody's interpreter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection

from celery_toolkit_testkit import TcpProxy


@contextmanager
def line(url: str, latency: float) -> Iterator[str]:
    """The URL through a proxy that adds `latency` seconds each way; it ends with the block, or with this process."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, url, latency), name="line", daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours.recv()
    finally:
        ours.close()
        process.join()


def _serve(pipe: Connection, url: str, latency: float) -> None:
    with TcpProxy(url) as proxy:
        proxy.latency = latency
        pipe.send(proxy.url)
        with suppress(EOFError):
            pipe.recv()
