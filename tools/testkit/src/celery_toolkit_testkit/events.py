"""A log of what tasks did, in a file outside Redis: what the tests believe when the server is the suspect."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from threading import Lock
from typing import Any

from .polling import eventually

PATH_VARIABLE = "CELERY_TOOLKIT_EVENT_LOG"


def log_event(**fields: Any) -> None:
    """Append one event to the log that the environment names; for the tasks of test applications.

    ``pid`` and ``at`` (seconds of the machine's monotonic clock, the same for all its processes) are added. One
    write to a file opened for appending: lines of several processes never mix.
    """
    line = json.dumps({"pid": os.getpid(), "at": time.monotonic(), **fields}) + "\n"
    descriptor = os.open(os.environ[PATH_VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


class EventLog:
    """Reads what `log_event` wrote.

    Args:
        path: The file; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = Lock()
        self._read = 0
        self._events: list[dict[str, Any]] = []

    def events(self, **fields: Any) -> list[dict[str, Any]]:
        """The events so far, in the order they were written, that have all of `fields`."""
        with self._lock:
            self._read_on()
            seen = tuple(self._events)
        return [event for event in seen if all(event.get(name) == value for name, value in fields.items())]

    def _read_on(self) -> None:
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._read)
            # Past the last line end somebody may be about to write.
            complete, end, _ = file.read().rpartition(b"\n")
        self._read += len(complete + end)
        self._events += map(json.loads, complete.splitlines())

    def wait_for(self, count: int, timeout: float = 60.0, **fields: Any) -> list[dict[str, Any]]:
        """Wait until there are at least `count` such events and return all of them.

        Raises:
            AssertionError: There were fewer after `timeout` seconds; it shows the last ones of any kind.
        """

        def enough() -> list[dict[str, Any]]:
            found = self.events(**fields)
            assert len(found) >= count, f"{len(found)} of {count}; the last of all: {self.events()[-5:]}"
            return found

        if count < 1:
            raise ValueError("wait for at least one event")
        return eventually(enough, timeout, f"{count} events with {fields}")
