"""Real sentinels in front of a master."""

from __future__ import annotations

import secrets
import subprocess
import tempfile
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import redis

from celery_toolkit_core.bound_process import end_bound, start_bound

from .polling import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from celery_toolkit_core.local_server import LocalServer

#: What the sentinels call the master.
MASTER_NAME = "mine"

_PORTS = range(10240, 32000)


@contextmanager
def sentinels(master: LocalServer, count: int = 1, *, down_after: float = 1.0) -> Iterator[list[int]]:
    """Start sentinels that watch `master` as `MASTER_NAME`.

    Args:
        master: The server that is the master now.
        count: How many; the master is replaced when more than half of them miss it.
        down_after: Seconds without an answer after which it is missed.

    Yields:
        Their ports.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sentinel-")))
        ports: list[int] = []
        while len(ports) < count:
            port = _PORTS[secrets.randbelow(len(_PORTS))]
            config = folder / f"{port}.conf"
            config.write_text(
                f"port {port}\nbind 127.0.0.1\n"
                f"sentinel monitor {MASTER_NAME} 127.0.0.1 {master.port} {count // 2 + 1}\n"
                f"sentinel down-after-milliseconds {MASTER_NAME} {int(down_after * 1000)}\n"
                f"sentinel failover-timeout {MASTER_NAME} 5000\n"
            )
            process = start_bound(
                [master.program, str(config), "--sentinel"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=folder,
            )
            stack.callback(end_bound, process)
            if eventually(partial(_state, process, port)) == "ready":
                ports.append(port)
        eventually(lambda: all(_others(port) == count - 1 for port in ports), message="sentinels know each other")
        yield ports


def sentinel_url(ports: Sequence[int]) -> str:
    """The URL that names these sentinels and `MASTER_NAME`."""
    return ";".join(f"sentinel://127.0.0.1:{port}" for port in ports) + f"/0?master_name={MASTER_NAME}"


def _state(process: subprocess.Popen[bytes], port: int) -> Literal["ready", "ended", ""]:
    # A taken port ends it at once; another one is drawn then.
    if process.poll() is not None:
        return "ended"
    return "ready" if _others(port) >= 0 else ""


def _others(port: int) -> int:
    """How many other sentinels that one knows; -1 while it does not answer."""
    try:
        with redis.Redis(port=port) as client:
            return int(client.sentinel_master(MASTER_NAME)["num-other-sentinels"])
    except (redis.RedisError, KeyError):
        return -1
