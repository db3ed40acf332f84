"""Real worker processes of a tour; none of them outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from celery_toolkit_core.bound_process import signal_group, start_bound

from .place import ROLE_VARIABLE

if TYPE_CHECKING:
    from .place import Place

# What workers of one cluster tell each other; a tour has nothing to hear there, and starts and stops faster without.
_QUIET = ("--without-gossip", "--without-mingle", "--without-heartbeat")


#: Node name -> the role of its application, and how many processes it has.
WORKERS = {"light": ("light", 2), "heavy": ("heavy", 2), "a": ("ring", 1), "b": ("ring", 1), "c": ("ring", 1)}


class Worker:
    """One prefork worker in a session of its own.

    Args:
        place: Where the tour runs.
        name: The node name in front of the ``@``.
        role: Which application of `tour.app`.
        concurrency: Processes of its pool.
    """

    def __init__(self, place: Place, name: str, role: str, concurrency: int) -> None:
        self.name = name
        self._log = place.folder / f"{name}.log"
        command = [sys.executable, "-m", "celery", "-A", "celery_showcase_presets.tour.app", "worker"]
        command += ["-n", f"{name}@{place.name}", "-c", str(concurrency), "-P", "prefork", "-l", "WARNING", *_QUIET]
        # A killed worker cannot remove its temporary files: they go with ours.
        environment = {**os.environ, ROLE_VARIABLE: role, "TMPDIR": str(place.folder)}
        if role == "ring":
            # It consumes what the ring gives it, and has its name there even where -X looks like -Q (Celery 5.5).
            command += ["-X", "heavy"]
            environment["CHAIN_ROUTER_SLOT"] = name
        with self._log.open("wb") as log:
            self._process = start_bound(
                command,
                env=environment,
                # Celery imports a celeryconfig.py from the folder in which it is started.
                cwd=place.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def pid(self) -> int:
        """The process id of its main process."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether its main process is there."""
        return self._process.poll() is None

    def last_words(self, count: int = 3) -> str:
        """The last lines of its log."""
        return " / ".join(self._log.read_text(errors="replace").split("\n")[-count - 1 :]).strip(" /")

    def ask_to_stop(self) -> None:
        """Begin a warm shutdown."""
        self._process.terminate()

    def end(self, patience: float) -> None:
        """Wait at most `patience` seconds for it to end, then end its whole session the hard way."""
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            pass
        finally:
            # Also after a good end: a child of the pool that was killed in the wrong moment is left behind.
            signal_group(self._process, signal.SIGKILL)
            self._process.wait()


class Crew:
    """All workers of one tour; ends them when the block ends, whatever happened in it.

    Args:
        place: Where the tour runs.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self.workers: dict[str, Worker] = {}

    def start(self, *names: str) -> None:
        """Start those of the `WORKERS` that are not there yet, and return at once."""
        for name in names:
            if name not in self.workers:
                self.workers[name] = Worker(self._place, name, *WORKERS[name])

    def kill(self, name: str) -> None:
        """End a worker as ``kill -9`` does; it is no longer of the crew."""
        self.workers.pop(name).end(0.0)

    def fallen(self) -> Worker | None:
        """A worker that has ended although nobody asked it to."""
        return next((worker for worker in self.workers.values() if not worker.is_running), None)

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # Ctrl-C, or a tour that failed: whoever has the terminal does not wait for bodies.
        end = time.monotonic() + (8.0 if kind is None else 0.0)
        if kind is None:
            for worker in self.workers.values():
                worker.ask_to_stop()
        for worker in self.workers.values():
            worker.end(max(0.0, end - time.monotonic()))
