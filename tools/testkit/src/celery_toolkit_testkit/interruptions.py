"""Kill -9 before or after any Redis command of an operation, in a real process.

The place where the victims are forked is a small program of the tests, a process without threads::

    if __name__ == "__main__":
        serve(lambda connection_class, url, operation, data: ...)

and the tests speak to it through a `Forge`.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import redis

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class DeadlyConnection(redis.Connection):
    """Ends its process, as ``kill -9`` does, before the nth command is sent or after its reply has come.

    The greeting of a new connection is not counted: it reaches nothing of ours. A script's EVALSHA is the first.
    """

    nth = 0
    moment = ""
    sent = 0

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """Send it, or die."""
        cls = type(self)
        cls.sent += bool(cls.sent) or b"EVALSHA" in b"".join(command)
        if cls.sent == cls.nth and cls.moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        super().send_packed_command(command, check_health=check_health)  # type: ignore[no-untyped-call]  # untyped there
        if cls.sent == cls.nth and cls.moment == "after":
            answer: Any = self._sock
            select.select([answer], [], [])
            os.kill(os.getpid(), signal.SIGKILL)


def serve(act: Callable[[redis.Redis, str, Any], object]) -> None:
    """Fork a victim for each order on standard input, and say whether it was killed.

    Args:
        act: Does an operation with a client: ``act(client, operation, data)``.
    """
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            DeadlyConnection.nth, DeadlyConnection.moment = order["nth"], order["moment"]
            pool = redis.ConnectionPool.from_url(order["url"], connection_class=DeadlyConnection)
            act(redis.Redis(connection_pool=pool), order["operation"], order["data"])
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, f"the child failed: {status}"
        print(json.dumps(os.WIFSIGNALED(status)), flush=True)


class Forge:
    """Runs operations in victims; use it with ``with``.

    Args:
        program: The file whose ``__main__`` calls `serve`.
        url: The server, by host and port: the victims' connections are of a class of their own.
    """

    def __init__(self, program: Path, url: str) -> None:
        self.url = url
        self._process = subprocess.Popen(
            [sys.executable, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Forge:
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def kill(self, operation: str, data: Any, nth: int, moment: str) -> bool:
        """Run an operation; True when its process was killed, False when it came to its end before that."""
        order = {"url": self.url, "operation": operation, "data": data, "nth": nth, "moment": moment}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return bool(json.loads(self._process.stdout.readline()))
