"""The application under examination, and the register of checks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from celery_toolkit_core.connection import connect, explain

from ..dead_letters import is_rabbitmq
from ..overview import answers_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from celery import Celery

Level = Literal["danger", "advice"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        check: The name of the check that found it.
        level: ``danger``: work is lost, repeated or stands still; ``advice``: it could be better.
        message: What is wrong and what to do, without values that may be secret.
    """

    check: str
    level: Level
    message: str


@dataclass(frozen=True, slots=True)
class Check:
    """A function that yields a sentence for each thing that is wrong; `looks` when it asks servers or workers."""

    level: Level
    looks: bool
    examine: Callable[[Case], Iterable[str]]


#: All checks by name, in the order in which they are made.
CHECKS: dict[str, Check] = {}


def check(
    name: str, level: Level = "danger", *, looks: bool = False
) -> Callable[[Callable[[Case], Iterator[str]]], Callable[[Case], Iterator[str]]]:
    """Register a check."""

    def register(function: Callable[[Case], Iterator[str]]) -> Callable[[Case], Iterator[str]]:
        assert name not in CHECKS
        CHECKS[name] = Check(level, looks, function)
        return function

    return register


class Case:
    """One application; what its servers and workers say is asked once.

    Args:
        app: The application.
        timeout: Seconds in which workers may answer.
        look: Whether they are asked at all.
    """

    def __init__(self, app: Celery, timeout: float, *, look: bool) -> None:
        self.app = app
        self.conf: Any = app.conf
        self._timeout = timeout
        self._look = look

    @cached_property
    def tasks(self) -> list[Any]:
        """The application's own tasks, by name."""
        self.app.loader.import_default_modules()
        self.app.finalize(auto=True)
        tasks = sorted(self.app.tasks.items())
        return [task for name, task in tasks if not name.startswith(("celery.", "celery_ranch."))]

    @cached_property
    def is_redis(self) -> bool:
        """Whether the broker is a Redis."""
        broker = str(self.conf.broker_url or "")
        return "redis" in broker.partition(":")[0] or broker.startswith("sentinel")

    @cached_property
    def is_rabbitmq(self) -> bool:
        """Whether the broker is RabbitMQ."""
        return is_rabbitmq(self.app)

    @cached_property
    def visibility_timeout(self) -> float:
        """Seconds after which a Redis broker repeats what is not acknowledged; kombu's default is an hour."""
        return float((self.conf.broker_transport_options or {}).get("visibility_timeout", 3600))

    @cached_property
    def broker_error(self) -> str | None:
        """Why the broker cannot be reached, or None."""
        try:
            with self.app.connection_for_read() as connection:
                connection.ensure_connection(max_retries=1)
        except Exception as error:  # noqa: BLE001  # transports raise anything
            return " ".join(f"{error}".split()) or type(error).__name__
        return None

    @cached_property
    def confs(self) -> dict[str, dict[str, Any]]:
        """The configuration of each worker that answers."""
        answers = self._asked("conf", with_defaults=True)
        return {node: answer for node, answer in answers if isinstance(answer, dict)}

    @cached_property
    def nodes(self) -> list[str]:
        """The node name of each worker that answers; it stands as often as workers bear it."""
        if not self._look or self.broker_error:
            return []
        return [node for node, _ in answers_of(self.app, "ping", self._timeout)]

    @cached_property
    def consumed(self) -> set[str]:
        """The queues that some worker consumes."""
        answers = [answer for _, answer in self._asked("active_queues") if isinstance(answer, list)]
        return {queue["name"] for answer in answers for queue in answer}

    @cached_property
    def pools(self) -> list[tuple[str, dict[str, Any]]]:
        """What each worker that answers says of its pool."""
        return [(node, answer.get("pool", {})) for node, answer in self._asked("stats") if isinstance(answer, dict)]

    def setting_everywhere(self, name: str) -> Iterator[tuple[str, Any]]:
        """The value of a setting here and in each worker that answers, each with where that is."""
        yield "", self.conf.get(name)
        for node, conf in self.confs.items():
            if name in conf:
                yield f" (worker {node})", conf[name]

    def redis_at(self, url: str | None, option: str) -> tuple[Any, str | None]:
        """A client of the Redis that a URL names, and why it does not answer; None and None where it names none."""
        if not url or not ("redis" in url.partition(":")[0] or url.startswith(("sentinel", "unix"))):
            return None, None
        options = self.conf.get(option) or {}
        master = {"master_name": options["master_name"]} if "master_name" in options else {}
        client = connect(url.partition(";")[0] if url.startswith("redis") else url, **master)
        try:
            client.ping()
        except Exception as error:  # noqa: BLE001  # whatever it is, it is what we came to find out
            return client, str(explain(error, client))
        return client, None

    def _asked(self, command: str, **arguments: Any) -> list[tuple[str, Any]]:
        # As many answers as there are workers; only the first question waits for all of its time.
        return answers_of(self.app, command, 10 * self._timeout, len(self.nodes), **arguments) if self.nodes else []
