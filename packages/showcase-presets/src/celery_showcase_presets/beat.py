"""One beat, in the foreground or in the background, and whether it runs."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import BeatRuns, ShowcaseError

if TYPE_CHECKING:
    from celery import Celery

#: Seconds for which a beat may come up, or go down.
_PATIENCE = 30.0


class Beat:
    """The beat of an application, known by its pid file.

    Args:
        app: The application.
        pidfile: Where a running beat notes its process.
    """

    def __init__(self, app: Celery, pidfile: Path) -> None:
        self._app = app
        self.pidfile = pidfile

    @property
    def pid(self) -> int | None:
        """The process of the running beat; None when there is none, whatever a killed one has left."""
        try:
            pid = int(self.pidfile.read_text())
            os.kill(pid, 0)
        except (FileNotFoundError, ValueError, ProcessLookupError):
            return None
        except PermissionError:
            pass
        return pid if _is_celery(pid) else None

    def run(self, *, schedule: Path, loglevel: str, scheduler: str | None = None) -> None:
        """Be the beat until interrupted.

        Raises:
            BeatRuns: There is one.
        """
        self._refuse_second()
        options: dict[str, Any] = {"scheduler": scheduler} if scheduler else {}
        # `quiet`: its banner names the broker, and says nothing that the log does not say.
        self._app.Beat(
            pidfile=str(self.pidfile), schedule=str(schedule), loglevel=loglevel, quiet=True, **options
        ).run()

    def start(self, *, schedule: Path, loglevel: str, logfile: Path, scheduler: str | None = None) -> int:
        """Start one in the background; its process, once it runs.

        Raises:
            BeatRuns: There is one.
            ShowcaseError: It ended at once; its log says why.
        """
        self._refuse_second()
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            self._become_daemon(logfile)
            try:
                self.run(schedule=schedule, loglevel=loglevel, scheduler=scheduler)
            finally:
                os._exit(1)
        end = time.monotonic() + _PATIENCE
        while self.pid != pid:
            if os.waitpid(pid, os.WNOHANG)[0] or time.monotonic() > end:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
                raise ShowcaseError(f"beat did not start; see {logfile}")
            time.sleep(0.05)
        return pid

    def stop(self) -> int | None:
        """End the running one and wait for it; its process, or None when there was none.

        Raises:
            ShowcaseError: It does not end.
        """
        pid = self.pid
        if pid is None:
            self.pidfile.unlink(missing_ok=True)
            return None
        os.kill(pid, signal.SIGTERM)
        end = time.monotonic() + _PATIENCE
        while self.pid == pid:
            if time.monotonic() > end:
                raise ShowcaseError(f"beat, process {pid}, does not end")
            time.sleep(0.05)
        return pid

    def _refuse_second(self) -> None:
        pid = self.pid
        if pid is not None:
            raise BeatRuns(f"beat runs already, as process {pid} ({self.pidfile})", pid=pid)
        # What a killed one has left would stop the new one.
        self.pidfile.unlink(missing_ok=True)

    def _become_daemon(self, logfile: Path) -> None:
        os.setsid()
        log = os.open(logfile, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (log, 1), (log, 2)):
            os.dup2(source, target)


def _is_celery(pid: int) -> bool:
    """Whether the process is one of ours, and not a stranger that got the number of a beat which has ended."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return not Path("/proc/self").exists()  # no /proc here: believe the file
    return state != "Z" and b"celery" in command
