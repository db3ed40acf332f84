"""One contender on the stage: its server, its environment, its workers, and what its bodies have noted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from measure import foreign_python

from celery_toolkit_core.bound_process import start_bound
from celery_toolkit_core.local_server import LocalServer
from celery_toolkit_testkit import TcpProxy
from celery_toolkit_testkit.processes import session_members

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: What all applications begin with.
HEAD = """
import json, os, sys, time
from celery import Celery
URL = os.environ["BENCH_URL"]
app = Celery("bench_app", broker=URL, backend=URL)
app.conf.broker_connection_retry_on_startup = True
def log(what, number):
    line = json.dumps({"at": time.time(), "what": what, "number": number}) + "\\n"
    file = os.open(os.environ["BENCH_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line.encode())
    os.close(file)
"""


@dataclass(frozen=True)
class Contender:
    """One way to do it.

    Attributes:
        label: As the picture names it; ours contain "toolkit".
        code: The rest of the application: a task ``job`` and ``submit(number)``.
        packages: What is installed beside Celery, in an environment of its own; nothing for ours and plain Celery.
        queues: Each worker consumes the queue of its own name.
    """

    label: str
    code: str
    packages: Sequence[str] = ()
    queues: bool = False


@dataclass
class Stage:
    """The server, the environment and the workers of one contender."""

    contender: Contender
    latency: float = 0.0
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __enter__(self) -> Stage:
        with ExitStack() as stack:
            self.folder = Path(stack.enter_context(TemporaryDirectory()))
            url = stack.enter_context(LocalServer()).url
            if self.latency:
                proxy = stack.enter_context(TcpProxy(url))
                proxy.latency = self.latency
                url = proxy.url
            (self.folder / "bench_app.py").write_text(HEAD + self.contender.code)
            self.events_path = self.folder / "events"
            self.environment = {
                **os.environ,
                "PYTHONPATH": str(self.folder),
                # celery-chain-router keeps its workers in a file at home.
                "HOME": str(self.folder),
                "BENCH_URL": url,
                "BENCH_LOG": str(self.events_path),
                "C_FORCE_ROOT": "1",
            }
            wanted = self.contender.packages
            self.python = foreign_python(self.folder, *wanted, "celery[redis]") if wanted else Path(sys.executable)
            stack.callback(self._end)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self, *names: str, concurrency: int = 2) -> None:
        """Start workers and return when they are ready."""
        for name in names:
            command = [str(self.python), "-m", "celery", "-A", "bench_app", "worker", "-n", f"{name}@bench"]
            command += ["-c", str(concurrency), "-l", "INFO", "--without-gossip", "--without-mingle"]
            command += ["-Q", name] if self.contender.queues else []
            with self._log(name).open("wb") as log:
                self.workers[name] = start_bound(command, env=self.environment, stdout=log, stderr=log)
        self.wait(lambda: all(b" ready." in self._log(name).read_bytes() for name in names), "workers to be ready")

    def kill(self, name: str) -> None:
        """``kill -9`` a worker and its processes."""
        worker = self.workers.pop(name)
        for pid in session_members(worker.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        worker.wait()

    def run(self, code: str, timeout: float = 240.0) -> str:
        """Run a program that has the application as ``app``; what it printed."""
        command = [str(self.python), "-c", f"import time, bench_app as app\n{code}"]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=timeout)
        if done.returncode:
            raise RuntimeError(f"{self.contender.label}: {done.stderr}")
        return done.stdout

    def events(self, what: str) -> list[dict[str, Any]]:
        """What the bodies have noted."""
        lines = self.events_path.read_text().splitlines() if self.events_path.exists() else []
        return [event for event in map(json.loads, lines) if event["what"] == what]

    def wait(self, condition: Callable[[], bool], what: str, timeout: float = 120.0) -> None:
        """Poll until so."""
        if not self.until(condition, timeout):
            logs = "\n".join(self._log(name).read_text(errors="replace")[-2000:] for name in self.workers)
            raise RuntimeError(f"{self.contender.label}: waited in vain for {what}\n{logs}")

    def until(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Poll until so, or until the time is over."""
        end = time.monotonic() + timeout
        while not (met := condition()) and time.monotonic() < end:
            time.sleep(0.05)
        return met

    def await_starts(self, count: int, timeout: float) -> bool:
        """Wait until so many bodies have begun; whether they have."""
        return self.until(lambda: len(self.events("start")) >= count, timeout)

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _end(self) -> None:
        for name in tuple(self.workers):
            self.kill(name)
