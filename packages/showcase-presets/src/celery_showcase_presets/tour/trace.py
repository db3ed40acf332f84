"""What happened in a tour: a file to which the workers append, one line for each start and end of a body.

The pictures and the checks are made from this file alone, which no queue and no result backend had a hand in.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: The variable that tells the workers of a tour where its trace is.
PATH_VARIABLE = "SHOWCASE_TOUR_TRACE"


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one body. Times are seconds of the machine's monotonic clock, alike in all its processes."""

    task_id: str
    task: str
    client: str
    worker: str
    pid: int
    start: float
    end: float | None


def record(what: str, **fields: Any) -> None:
    """Append one line; a single write to a file opened for appending, so that lines of several processes never mix."""
    line = json.dumps({"what": what, "at": time.monotonic(), "pid": os.getpid(), **fields}) + "\n"
    descriptor = os.open(os.environ[PATH_VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


@contextmanager
def recorded(task: Any, client: str) -> Iterator[None]:
    """Record the start and the end of the body that runs in this block, however it ends."""
    request = task.request
    worker = (request.hostname or "").partition("@")[0]
    record("start", id=request.id, task=task.name, client=client, worker=worker)
    try:
        yield
    finally:
        record("end", id=request.id)


class Trace:
    """Reads the file of a tour that may still be running.

    Args:
        path: The file; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def lines(self, what: str) -> list[dict[str, Any]]:
        """The lines of one kind, in the order in which they were written."""
        if not self.path.exists():
            return []
        # Behind the last line end somebody may be writing.
        complete = self.path.read_bytes().rpartition(b"\n")[0]
        found: list[dict[str, Any]] = [json.loads(line) for line in complete.splitlines()]
        return [line for line in found if line["what"] == what]

    def runs(self, wanted: Callable[[Run], bool] = lambda _: True) -> list[Run]:
        """All runs so far by their start; `end` is None while a body runs, and for ever if its process was killed."""
        open_runs: dict[tuple[str, int], dict[str, Any]] = {}
        runs = []
        for line in sorted(self.lines("start") + self.lines("end"), key=lambda line: line["at"]):
            key = (line["id"], line["pid"])
            if line["what"] == "start":
                open_runs[key] = line
            elif begun := open_runs.pop(key, None):
                runs.append(_run(begun, line["at"]))
        runs += [_run(begun, None) for begun in open_runs.values()]
        return sorted(filter(wanted, runs), key=lambda run: run.start)


def _run(begun: dict[str, Any], end: float | None) -> Run:
    return Run(begun["id"], begun["task"], begun["client"], begun["worker"], begun["pid"], begun["at"], end)
