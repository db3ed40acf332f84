"""Dead letters: what a task that failed for good leaves behind, and its way back into the queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from celery_toolkit_core.celery.configuration import redis_url_of
from celery_toolkit_core.connection import connect
from celery_toolkit_core.errors import InvalidParameter
from celery_toolkit_core.settings import read_settings

from .rabbit_letters import RabbitLetters
from .redis_letters import RedisLetters
from .settings import PREFIX, ShowcaseSettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from celery import Celery

    from celery_toolkit_core.deadletters import DeadLetter

_ATTRIBUTE = "_showcase_letters"


class Letters(Protocol):
    """The dead letters of an application, wherever they are kept; oldest first, one for each task id."""

    def __iter__(self) -> Iterator[DeadLetter]: ...

    def __len__(self) -> int: ...

    def page(self, after: str = "", *, count: int = 100) -> list[DeadLetter]:
        """Up to `count` letters behind the one whose `cursor` is `after`."""

    def find(self, task_id: str) -> DeadLetter | None:
        """The letter of a task."""

    def purge(self, ids: Sequence[str]) -> int:
        """Remove letters for good; how many there were."""

    def purge_older(self, age: float = 0.0) -> int:
        """Remove all letters older than `age` seconds; how many there were."""

    def replay(self, app: Celery, ids: Iterable[str]) -> list[str]:
        """Send the messages of letters again; the ids of those that were sent."""

    def put(self, letter: DeadLetter) -> Any:
        """Keep a letter; for workers."""

    def prepare(self) -> None:
        """Make ready for `put`; for workers, at their start."""

    def gets_rejected(self, queue: str) -> bool:
        """Whether the broker itself brings what is rejected in this queue."""


def settings_of(app: Celery) -> ShowcaseSettings:
    """The application's ``showcase_*``.

    Raises:
        InvalidParameter: One of them cannot be meant.
    """
    return read_settings(ShowcaseSettings, PREFIX, app.conf.get)


def dead_letters_of(app: Celery) -> Letters:
    """The dead letters of an application, the same object each time; safe to use after a fork.

    Raises:
        InvalidParameter: A setting cannot be meant.
        ToolkitError: They are kept in Redis, and the application has none.
    """
    app = getattr(app, "_get_current_object", lambda: app)()
    found: Letters | None = app.__dict__.get(_ATTRIBUTE)
    if found is None:
        found = app.__dict__[_ATTRIBUTE] = _letters_of(app)
    return found


def replay(
    app: Celery, ids: Sequence[str] | None = None, *, task: str | None = None, since: float | None = None
) -> list[str]:
    """Send dead messages again, each with its own task id, to the queue that it died in; its attempts begin anew.

    Each letter leads to one run: letters are removed when they have been sent, two replays at a time share them, and
    after a replay that was killed in between the next one makes no second run.

    Args:
        app: The application.
        ids: Which; by default all.
        task: Only letters of this task.
        since: Only letters that are not older than this moment, in seconds since 1970.

    Returns:
        The ids of what was sent.

    Raises:
        kombu.exceptions.OperationalError: The broker is away; what was not sent stays.
    """
    letters = dead_letters_of(app)
    if ids is None or task is not None or since is not None:
        among = None if ids is None else set(ids)
        ids = [
            letter.id
            for letter in letters
            if (among is None or letter.id in among)
            and task in (None, letter.task)
            and (since is None or letter.at >= since)
        ]
    return letters.replay(app, ids)


def is_rabbitmq(app: Celery) -> bool:
    """Whether the application's broker is RabbitMQ, or another server of its protocol."""
    return str(app.conf.broker_url or "amqp://").startswith(("amqp", "pyamqp"))


def _letters_of(app: Celery) -> Letters:
    settings = settings_of(app)
    store = settings.dead_letters_store or ("rabbitmq" if is_rabbitmq(app) else "redis")
    if store == "rabbitmq":
        if not is_rabbitmq(app):
            raise InvalidParameter("showcase_dead_letters_store", store, "the broker is none; take 'redis'")
        if settings.dead_letters_queue in app.amqp.queues:
            raise InvalidParameter(
                "showcase_dead_letters_queue",
                settings.dead_letters_queue,
                "tasks wait in that queue: dead letters need one of their own",
            )
        return RabbitLetters(app, settings)
    return RedisLetters(connect(redis_url_of(app, PREFIX), parameter="showcase_redis_url"), settings)
