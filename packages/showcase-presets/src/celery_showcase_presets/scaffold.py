"""What ``celery-showcase init`` writes: files to run Celery with, made for one project, with passwords of its own."""

from __future__ import annotations

import os
import re
import secrets
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from celery_toolkit_core.errors import InvalidParameter
from celery_toolkit_core.parameters import one_of, seconds

from .errors import FilesInTheWay
from .tasks import HeavyTask, LightTask

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Broker = Literal["redis", "rabbitmq"]
BROKERS: tuple[Broker, ...] = ("redis", "rabbitmq")

#: Files that hold passwords: only their owner may read them, and nothing overwrites them.
SECRET_FILES = ("compose/.env", "systemd/celery.env", "helm/secrets.yaml")

#: Seconds that a worker gets on top of the longest body until it is killed.
_MARGIN = 60

# Written under another name than they are shipped, or in two places.
_PLACES = {
    "compose/env": ("compose/.env",),
    "prometheus/rules.yml": ("prometheus/rules.yml", "helm/files/rules.yml"),
    "grafana/dashboard.json": ("grafana/dashboard.json", "helm/files/dashboard.json"),
}
_PLACEHOLDER = re.compile(r"@([a-z_]+)@")


@dataclass(frozen=True, slots=True)
class Choices:
    """What the one who calls ``init`` has chosen, checked.

    Args:
        app: The module with the applications ``publisher``, ``heavy`` and ``light``.
        image: The container image.
        name: What compose calls the project.
        broker: Which of the two servers carries the messages; results and dead letters are in Redis either way.
        workdir: The project's folder on a machine without containers, with its ``.venv``.
        longest_task: Seconds that a heavy task may run.

    Raises:
        InvalidParameter: One of them cannot be meant.
    """

    app: str = "proj.apps"
    image: str = "proj:latest"
    name: str = "celery"
    broker: Broker = "redis"
    workdir: str = "/opt/celery"
    longest_task: float = float(HeavyTask.time_limit)

    def __post_init__(self) -> None:
        one_of("broker", self.broker, BROKERS)
        seconds("longest_task", self.longest_task)
        for parameter, pattern, remedy in (
            ("app", r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", "give a module, such as shop.apps"),
            ("image", r"[\w.:/@-]+", "give an image, such as registry.example.org/shop:1.0"),
            ("name", r"[a-z0-9][a-z0-9_-]*", "give small letters, digits, - and _"),
            ("workdir", r"/[\w./-]*", "give a path that begins with /"),
        ):
            if not re.fullmatch(pattern, getattr(self, parameter), re.ASCII):
                raise InvalidParameter(parameter, getattr(self, parameter), remedy)


def write(folder: Path, choices: Choices, *, force: bool = False) -> list[str]:
    """Write all files below `folder`, which is made if need be.

    Args:
        folder: Where to.
        choices: What to write into them.
        force: Overwrite what is there; files with passwords stay even so, because servers know these passwords.

    Returns:
        The paths of the written files, relative to `folder`.

    Raises:
        FilesInTheWay: Something is there already, and nothing was written.
    """
    texts = dict(_texts(choices))
    there = [place for place in texts if (folder / place).exists()]
    if there and not force:
        raise FilesInTheWay(
            f"{folder} already has {', '.join(sorted(there)[:3])}{', ...' if len(there) > 3 else ''}: "
            "choose another folder, or --force to overwrite all but the files with passwords",
            files=there,
        )
    written = []
    for place, text in texts.items():
        secret = place in SECRET_FILES
        if secret and place in there:
            continue
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        # Never readable by others, not even for the moment between writing and a chmod.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600 if secret else 0o644)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        written.append(place)
    return written


def _texts(choices: Choices) -> Iterator[tuple[str, str]]:
    values = _values(choices)
    for source, text in _shipped(files(__package__) / "manifests", PurePosixPath()):
        filled = _PLACEHOLDER.sub(lambda found: values[found[1]], text)
        for place in _PLACES.get(str(source), (str(source),)):
            yield place, filled
    yield ".gitignore", "".join(f"/{place}\n" for place in SECRET_FILES)


def _shipped(folder: Any, place: PurePosixPath) -> Iterator[tuple[PurePosixPath, str]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _shipped(entry, place / entry.name)
        else:
            yield place / entry.name, entry.read_text(encoding="utf-8")


def _values(choices: Choices) -> dict[str, str]:
    passwords = {f"{name}_password": secrets.token_urlsafe(24) for name in ("redis", "rabbitmq", "flower")}
    heavy, light = round(choices.longest_task), int(LightTask.time_limit)
    redis, rabbitmq = passwords["redis_password"], passwords["rabbitmq_password"]

    def broker(redis_host: str, rabbitmq_host: str) -> str:
        if choices.broker == "rabbitmq":
            return f"amqp://celery:{rabbitmq}@{rabbitmq_host}:5672//"
        return f"redis://:{redis}@{redis_host}:6379/0"

    return {
        **passwords,
        "app": choices.app,
        "image": choices.image,
        "name": choices.name,
        "workdir": choices.workdir.rstrip("/") or "/",
        "profiles": "rabbitmq" if choices.broker == "rabbitmq" else "",
        "heavy_limit": str(heavy),
        "light_limit": str(light),
        "heavy_grace": str(heavy + _MARGIN),
        "light_grace": str(light + _MARGIN),
        "compose_broker": broker("redis", "rabbitmq"),
        "host_broker": broker("127.0.0.1", "127.0.0.1"),
        "cluster_broker": broker("redis", "rabbitmq"),
    }
