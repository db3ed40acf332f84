"""Looking at processes and freezing them; Linux only, by ``/proc``."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    return any(row.pid == pid for row in _table())


def child_pids(pid: int) -> list[int]:
    """The living children of a process, lowest number first."""
    return [row.pid for row in _table() if row.parent == pid]


def session_members(leader: int) -> list[int]:
    """The living processes of the session that `leader` opened, lowest number first; it may be dead itself."""
    return [row.pid for row in _table() if row.session == leader]


@contextmanager
def frozen(*pids: int) -> Iterator[None]:
    """Stop processes (SIGSTOP) for the length of the block; they continue after it, whatever happens inside."""
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            if is_alive(pid):
                os.kill(pid, signal.SIGCONT)


class _Row(NamedTuple):
    pid: int
    parent: int
    session: int


def _table() -> list[_Row]:
    rows = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            text = (entry / "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        # The second field is the program's name in brackets and may hold anything, brackets included.
        state, parent, _group, session = text.rpartition(")")[2].split()[:4]
        if state not in ("Z", "X"):
            rows.append(_Row(int(entry.name), int(parent), int(session)))
    return sorted(rows)
