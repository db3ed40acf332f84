"""A real ``celery worker`` in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from celery_toolkit_core.bound_process import start_bound

from .processes import child_pids, session_members

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

# What workers tell each other: slow to start, and of no use to a test that does not ask for it.
_QUIET = ("--without-gossip", "--without-mingle", "--without-heartbeat")

# ``python -m celery`` imports flower and an interactive shell, which no worker runs: a third of its time to start, and
# the suites start hundreds. All else is Celery's own main program.
_CELERY = """
import importlib.metadata, sys, types
found = importlib.metadata.entry_points
def without_flower(**chosen):
    if chosen != {"group": "celery.commands"}:
        return found(**chosen)
    return [each for each in found(**chosen) if not each.module.startswith("flower")]
importlib.metadata.entry_points = without_flower
sys.modules["click_repl"] = shell = types.ModuleType("click_repl")
shell.register_repl = lambda group: None
from celery import __main__
sys.argv[0] = __main__.__file__
__main__.main()
"""


class WorkerProcess:
    """One ``celery -A module worker``, in its own session; it dies with the process that made it.

    Args:
        module: What ``-A`` gets.
        log_path: The file for all that it writes.
        pool: ``prefork``, ``threads``, ``solo`` or ``gevent``.
        concurrency: Pool size.
        queues: Queues to consume; by default the application's own choice.
        name: Node name in front of the ``@``.
        env: Variables on top of this process's environment.
        path: Folders to import from, in front of ``PYTHONPATH``.
        arguments: Further arguments of ``celery worker``.
        quiet: Without gossip, mingle and heartbeat, which halves the time to start and to stop.
        loglevel: ``INFO`` at least: the line by which it says that it is ready has that level.
        deadline: Seconds for it to become ready.
    """

    def __init__(
        self,
        module: str,
        log_path: Path,
        *,
        pool: str = "prefork",
        concurrency: int = 2,
        queues: Sequence[str] = (),
        name: str = "w1",
        env: Mapping[str, str] | None = None,
        path: Sequence[str | Path] = (),
        arguments: Sequence[str] = (),
        quiet: bool = True,
        loglevel: str = "INFO",
        deadline: float = 60.0,
    ) -> None:
        self.name = f"{name}@test"
        self.log_path = log_path
        self.deadline = deadline
        command = [sys.executable, "-c", _CELERY, "-A", module, "worker", "-n", self.name, "-l", loglevel]
        command += ["-P", pool, "-c", str(concurrency), *(_QUIET if quiet else ()), *arguments]
        if queues:
            command += ["-Q", ",".join(queues)]
        folders = [*map(str, path), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(folders),
            "PYTHONUNBUFFERED": "1",
            "PYTHONFAULTHANDLER": "1",
            **(env or {}),
        }
        with log_path.open("wb") as log:
            self._process = start_bound(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )

    @property
    def pid(self) -> int:
        """The process id of the worker's main process."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the main process is there."""
        return self._process.poll() is None

    def log(self) -> str:
        """All that the worker has written so far."""
        return self.log_path.read_text(errors="replace")

    def child_pids(self) -> list[int]:
        """The pool's processes, oldest first; empty unless the pool is ``prefork``."""
        return child_pids(self.pid)

    def wait_ready(self) -> None:
        """Return when the worker consumes.

        Raises:
            AssertionError: It ended, or was not ready before the deadline; with its log.
        """
        self.wait_for_log(f"{self.name} ready.", self.deadline)

    def wait_for_log(self, text: str, timeout: float = 60.0, *, count: int = 1) -> None:
        """Return when `text` stands `count` times in the log.

        Raises:
            AssertionError: The worker ended without it, or `timeout` seconds passed; with the log.
        """
        end = time.monotonic() + timeout
        while True:
            # In this order: what it wrote last before it ended counts.
            ended = not self.is_running
            if self.log().count(text) >= count:
                return
            if ended or time.monotonic() > end:
                why = f"ended with {self._process.returncode}" if ended else f"did not within {timeout:g} s"
                raise AssertionError(f"{self.name} was to write {text!r} but {why}; its log:\n{self.log()}")
            time.sleep(0.02)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the main process and do not wait."""
        self._process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout: float = 60.0) -> int:
        """Ask the worker to end (SIGTERM: warm shutdown, SIGQUIT: cold) and wait for it.

        Returns:
            The exit code.

        Raises:
            AssertionError: It still runs after `timeout` seconds; with its log.
        """
        self._process.send_signal(number)
        return self.wait(timeout)

    def wait(self, timeout: float = 60.0) -> int:
        """Wait until the worker ends by itself.

        Returns:
            The exit code.

        Raises:
            AssertionError: It still runs after `timeout` seconds; with its log.
        """
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end within {timeout:g} s; its log:\n{self.log()}") from None

    def kill(self) -> None:
        """``kill -9`` the main process; its pool dies of that, as in production. Returns when all are gone."""
        self._process.kill()
        self._process.wait()
        end = time.monotonic() + 10.0
        while session_members(self.pid) and time.monotonic() < end:
            time.sleep(0.01)
        self.destroy()

    def destroy(self) -> None:
        """End at once whatever is left of it, children without a parent included; for the end of a test."""
        for pid in session_members(self.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
