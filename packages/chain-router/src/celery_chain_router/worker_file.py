"""The persistent file: worker names and weights as JSON, shared by processes of one machine."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
import time
from typing import TYPE_CHECKING, Any

from celery_toolkit_core.errors import InvalidParameter

from .errors import WorkerFileError
from .names import weight, worker_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

#: Seconds to wait for another process that is just writing.
LOCK_TIMEOUT = 10.0


class WorkerFile:
    """``{"worker1": {"weight": 1}, ...}`` in a file that at every moment is whole.

    A change is read, merged and written under a lock (``<file>.lock``, which stays), into a new file that then takes
    the place of the old one. Files of celery-chain-router 0.2 (``{"worker1": [positions]}``) are read as well.

    Args:
        path: The file; it need not exist, its folder must.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, float]:
        """Worker -> weight; empty when there is no file.

        Raises:
            WorkerFileError: It is a directory, unreadable, or holds something else.
        """
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise self._error(_reason(error)) from error
        try:
            content = json.loads(data)
        except ValueError as error:
            raise self._error("it is not JSON; repair it, or give reset_persistent=True to begin anew") from error
        if not isinstance(content, dict):
            raise self._error("it holds no JSON object; give reset_persistent=True to begin anew")
        try:
            return {worker_name(name): _weight(entry) for name, entry in content.items()}
        except InvalidParameter as error:
            raise self._error(f"{error}; repair it, or give reset_persistent=True to begin anew") from error

    def update(self, change: Callable[[dict[str, float]], None]) -> dict[str, float]:
        """Apply `change` to what the file holds now, write it, and return it.

        Raises:
            WorkerFileError: It cannot be read, locked or written; the old content stays.
        """
        try:
            with self._locked():
                members = self.read()
                change(members)
                self._write(members)
        except OSError as error:
            raise self._error(_reason(error)) from error
        return members

    def reset(self) -> None:
        """Remove the file, whatever it holds.

        Raises:
            WorkerFileError: It is a directory, or may not be removed.
        """
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise self._error(_reason(error)) from error

    def _write(self, members: dict[str, float]) -> None:
        data = json.dumps({name: {"weight": weight} for name, weight in members.items()}, indent=1).encode()
        descriptor, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                # mkstemp lets only the owner in; whoever could read the file before still can.
                mode = self.path.stat().st_mode & 0o777 if self.path.exists() else 0o644
                os.fchmod(file.fileno(), mode)
            os.replace(temporary, self.path)  # noqa: PTH105  # a str from mkstemp
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)  # noqa: PTH108  # likewise
            raise

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        # A file of its own: the one that holds the data is replaced, and a lock on it would be on the old one.
        descriptor = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            end = time.monotonic() + LOCK_TIMEOUT
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > end:
                        raise self._error(f"another process has held its lock for {LOCK_TIMEOUT:g} seconds") from None
                    time.sleep(0.005)
            yield
        finally:
            os.close(descriptor)

    def _error(self, reason: str) -> WorkerFileError:
        return WorkerFileError(str(self.path), reason)


def _weight(entry: Any) -> float:
    return weight(entry.get("weight", 1)) if isinstance(entry, dict) else 1


def _reason(error: OSError) -> str:
    return f"{error.strerror or error}; give the path of a file in a folder that this process may write"
