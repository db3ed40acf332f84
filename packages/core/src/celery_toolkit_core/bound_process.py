"""A child process that does not outlive its parent, however the parent ends."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Linux keeps the parent-death signal over exec, so a small Python that becomes the program can set it on itself: no
# ``preexec_fn``, which may deadlock a parent that has threads. The parent may be gone before the signal was asked for,
# hence the second look. Python ignores SIGPIPE and SIGXFSZ and exec would pass that on, hence the defaults.
_LAUNCHER = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    os._exit(1)
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
try:
    os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error:
    sys.exit(f"{sys.argv[2]}: {error.strerror}")
"""


def start_bound(argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start `argv` so that the kernel kills it when this process ends, by ``kill -9`` too.

    The process is the leader of its own session: a Ctrl-C at the terminal reaches it only through its parent, and its
    whole group can be ended by one signal. Where the system has no parent-death signal (anything but Linux) the process
    is an ordinary child, which its owner ends.

    Args:
        argv: Program and arguments; the program is looked up on PATH.
        **options: Passed to `subprocess.Popen`.

    Returns:
        The process; its pid is the program's own.
    """
    command = [str(part) for part in argv]
    if sys.platform == "linux":
        command = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *command]
    options.setdefault("start_new_session", True)

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, **options)

    # The signal comes when the *thread* that forked ends; only two kinds of thread live as long as the process.
    if threading.current_thread() is threading.main_thread():
        return start()
    return _everlasting(start)


def end_bound(process: subprocess.Popen[bytes], *, patience: float = 5.0) -> int:
    """End a process started here, at first politely, and reap it.

    Args:
        process: What `start_bound` returned.
        patience: Seconds between SIGTERM and SIGKILL for its whole group.

    Returns:
        The exit code; negative is the number of the signal that ended it.
    """
    process.terminate()
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        signal_group(process, signal.SIGKILL)
    return process.wait()


def signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to the group that `process` leads; a group without members is no error."""
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):  # macOS answers EPERM for a group of zombies
        return


_Job = tuple["Callable[[], subprocess.Popen[bytes]]", "Future[subprocess.Popen[bytes]]"]
_jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
_starter: threading.Thread | None = None
_starter_lock = threading.Lock()


def _everlasting(start: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
    global _starter
    future: Future[subprocess.Popen[bytes]] = Future()
    with _starter_lock:
        if _starter is None:
            _starter = threading.Thread(target=_serve, name="start-bound", daemon=True)
            _starter.start()
    _jobs.put((start, future))
    return future.result()


def _serve() -> None:
    while True:
        start, future = _jobs.get()
        try:
            future.set_result(start())
        except BaseException as error:  # noqa: BLE001 - belongs to the thread that asked
            future.set_exception(error)


def _forget_starter() -> None:
    global _jobs, _starter, _starter_lock
    _jobs, _starter, _starter_lock = queue.SimpleQueue(), None, threading.Lock()


# A thread does not survive a fork, and a lock may have been held at that moment.
os.register_at_fork(after_in_child=_forget_starter)
