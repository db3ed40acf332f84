"""Where a tour runs: its server, its keys and its folder, handed to the workers by the environment."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

import redis

from celery_toolkit_core.connection import connect

from .trace import PATH_VARIABLE

_URL = "SHOWCASE_TOUR_REDIS"
_NAME = "SHOWCASE_TOUR_NAME"
_BROKER = "SHOWCASE_TOUR_BROKER"
#: The variable that names the role of a process, see `tour.app`.
ROLE_VARIABLE = "SHOWCASE_TOUR_ROLE"

# Celery lets these win over what an application says.
_CELERY_OWN = ("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL", "CELERY_RESULT_BACKEND")


@dataclass(frozen=True, slots=True)
class Place:
    """One tour's place; every key on the server begins with its prefix.

    Args:
        url: The Redis server, which may be somebody's.
        folder: A temporary folder.
        name: Tells tours on one machine and one server apart.
        rabbitmq: The broker, if it is not that server: a virtual host that is this tour's alone.
    """

    url: str
    folder: Path
    name: str = field(default_factory=lambda: f"tour-{secrets.token_hex(3)}")
    rabbitmq: str | None = None

    @property
    def prefix(self) -> str:
        """What all keys of this tour hold."""
        return f"showcase-{self.name}:"

    @property
    def trace_path(self) -> Path:
        """The file of `trace`."""
        return self.folder / "trace.jsonl"

    def enter(self) -> None:
        """Make this the place of this process and of those that it starts."""
        os.environ.update(
            {_URL: self.url, _NAME: self.name, PATH_VARIABLE: str(self.trace_path), _BROKER: self.rabbitmq or ""}
        )
        for variable in _CELERY_OWN:
            os.environ.pop(variable, None)

    @classmethod
    def from_environment(cls) -> Place:
        """The place that this process, or the one that started it, has entered."""
        return cls(
            os.environ[_URL], Path(os.environ[PATH_VARIABLE]).parent, os.environ[_NAME], os.environ[_BROKER] or None
        )

    def remove_keys(self) -> None:
        """Take all keys of this tour off the server."""
        client: redis.Redis = connect(self.url)
        with client:
            for key in client.scan_iter(match=f"*{self.prefix}*", count=1000):
                client.unlink(key)
