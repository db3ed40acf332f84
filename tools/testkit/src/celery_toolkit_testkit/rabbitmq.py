"""A private RabbitMQ server: own ports, node name, data, cookie and epmd."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

from celery_toolkit_core.bound_process import end_bound, start_bound

if TYPE_CHECKING:
    from collections.abc import Sequence

# Debian's scripts on PATH change the user and use the machine's own folders; the scripts behind them do not.
_SCRIPTS = Path("/usr/lib/rabbitmq/bin")
_PORTS = range(10240, 32000)
_ATTEMPTS = 5
_CONFIG = """
log.console = true
log.console.level = info
log.file = false
disk_free_limit.absolute = 10MB
"""
# Rates are not looked at; totals are kept by each queue.
_MANAGEMENT = """
management.tcp.ip = 127.0.0.1
management.tcp.port = {port}
management_agent.disable_metrics_collector = false
collect_statistics_interval = 500
"""


class RabbitNotFound(Exception):
    """RabbitMQ is not installed on this machine."""


class RabbitFailed(Exception):
    """The server did not start; the message ends with its log."""


class RabbitServer:
    """RabbitMQ on the loopback; it and its epmd die with this process.

    Args:
        plugins: Plugins to enable, e.g. ``["rabbitmq_management"]``, which then listens on `management_port`.
        deadline: Seconds to become ready; about 5 are needed on an idle machine.
    """

    def __init__(self, *, plugins: Sequence[str] = (), deadline: float = 90.0) -> None:
        self._server, self._control = _script("rabbitmq-server"), _script("rabbitmqctl")
        if shutil.which("epmd") is None:
            raise RabbitNotFound("RabbitMQ is not installed (no epmd of Erlang)")
        self.deadline = deadline
        self._folder = Path(tempfile.mkdtemp(prefix="rabbitmq-"))
        self._processes: list[subprocess.Popen[bytes]] = []
        self._finalizer = weakref.finalize(self, _end, self._processes, self._folder, os.getpid())
        cookie = self._folder / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(16))
        cookie.chmod(0o400)
        (self._folder / "enabled_plugins").write_text(f"[{','.join(plugins)}].\n")
        #: The port of the management API, if that plugin is enabled.
        self.management_port = _draw()
        extra = _MANAGEMENT.format(port=self.management_port) if "rabbitmq_management" in plugins else ""
        (self._folder / "rabbitmq.conf").write_text(_CONFIG + extra)
        self._ports: tuple[int, int, int] | None = None

    @property
    def url(self) -> str:
        """``amqp://`` with the guest user and the default virtual host."""
        return self._url("%2f")

    @property
    def port(self) -> int:
        """The AMQP port."""
        if self._ports is None:
            raise RuntimeError("the server has not been started yet")
        return self._ports[0]

    @property
    def pid(self) -> int:
        """The process id of the Erlang machine."""
        return self._processes[-1].pid

    def start(self) -> None:
        """Start and return when the server accepts connections; a server that runs is left alone.

        Raises:
            RabbitFailed: It ended, or the deadline passed.
        """
        if self._processes and self._processes[-1].poll() is None:
            return
        fixed = self._ports
        for _ in range(1 if fixed else _ATTEMPTS):
            self._ports = fixed or (_draw(), _draw(), _draw())
            if self._launch():
                return
            self._halt()
        raise RabbitFailed(f"RabbitMQ found no free ports; its log:\n{self.log()}")

    def restart(self) -> None:
        """End in an orderly way and start again on the same port with the same data, as an upgrade does."""
        self._halt()
        self.start()

    def kill(self) -> None:
        """``kill -9``; `start` brings it back on the same port with the data that was on disk."""
        self._processes[-1].kill()
        self._halt()

    def stop(self) -> None:
        """End the server and its epmd and remove its directory."""
        self._finalizer()

    def fresh_url(self) -> str:
        """The URL of a new, empty virtual host."""
        name = f"v{secrets.token_hex(4)}"
        self.control(
            "eval",
            f'rabbit_vhost:add(<<"{name}">>, <<"guest">>), rabbit_auth_backend_internal:set_permissions('
            f'<<"guest">>, <<"{name}">>, <<".*">>, <<".*">>, <<".*">>, <<"guest">>).',
        )
        return self._url(name)

    def control(self, *arguments: str) -> str:
        """Run ``rabbitmqctl`` (a second or two) and return what it prints."""
        done = subprocess.run(
            [self._control, "--quiet", *arguments],
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=self.deadline,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RabbitFailed(f"rabbitmqctl {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    def log(self) -> str:
        """What the server has written since its last start."""
        path = self._folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def __enter__(self) -> RabbitServer:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def _launch(self) -> bool:
        """Start epmd and the server; False when a port was taken."""
        environment = self._environment()
        # An epmd of our own, in the foreground: the server would start one that outlives everything.
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._processes.append(start_bound(["epmd"], env=environment, **quiet))
        with (self._folder / "log").open("wb") as log:
            self._processes.append(
                start_bound(
                    [str(self._server)],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=self._folder,
                )
            )
        epmd, server = self._processes[-2:]
        end = time.monotonic() + self.deadline
        while "Server startup complete" not in (log_text := self.log()):
            if epmd.poll() is not None or (server.poll() is not None and "eaddrinuse" in log_text):
                return False
            if server.poll() is not None or time.monotonic() > end:
                self._halt()
                raise RabbitFailed(f"RabbitMQ did not start within {self.deadline:g} s; its log:\n{log_text}")
            time.sleep(0.05)
        return True

    def _halt(self) -> None:
        while self._processes:
            end_bound(self._processes.pop(), patience=30.0)

    def _url(self, virtual_host: str) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/{virtual_host}"

    def _environment(self) -> dict[str, str]:
        assert self._ports is not None
        amqp, distribution, epmd = self._ports
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RABBITMQ_", "ERL_"))}
        folder = str(self._folder)
        return {
            **kept,
            "HOME": folder,
            "LC_ALL": "C.UTF-8",
            "ERL_EPMD_PORT": str(epmd),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled_plugins",
            "RABBITMQ_GENERATED_CONFIG_DIR": f"{folder}/config",
            "RABBITMQ_LOG_BASE": folder,
            "RABBITMQ_MNESIA_BASE": f"{folder}/data",
            "RABBITMQ_PID_FILE": f"{folder}/pid",
            "RABBITMQ_NODENAME": f"test{amqp}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(amqp),
            "RABBITMQ_DIST_PORT": str(distribution),
            # One scheduler that does not spin: the cores belong to the tests.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +S 1:1 +sbwt none",
            # Its script then becomes the server (and not a shell in front of it), so that our pid is the server's.
            "RUNNING_UNDER_SYSTEMD": "true",
        }


def _script(name: str) -> Path:
    script = _SCRIPTS / name
    if script.exists():
        return script
    on_path = shutil.which(name)
    if on_path is None:
        raise RabbitNotFound(f"RabbitMQ is not installed (no {name})")
    return Path(on_path)


def _draw() -> int:
    return _PORTS[secrets.randbelow(len(_PORTS))]


def _end(processes: list[subprocess.Popen[bytes]], folder: Path, owner: int) -> None:
    if os.getpid() != owner:  # a fork owns nothing
        return
    while processes:
        end_bound(processes.pop(), patience=30.0)
    shutil.rmtree(folder, ignore_errors=True)
