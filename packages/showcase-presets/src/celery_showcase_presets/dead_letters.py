"""Dead letters: what a task that failed for good leaves behind, and its way back into the queue."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from celery_toolkit_core.celery.deliveries import CONTROL, Follower, Gate
from celery_toolkit_core.celery.messages import StoredMessage
from celery_toolkit_core.celery.worker import warn_of_unknown_settings
from celery_toolkit_core.connection import connect, find_redis_url
from celery_toolkit_core.deadletters import DeadLetter, DeadLetters
from celery_toolkit_core.errors import InvalidParameter, ToolkitError
from celery_toolkit_core.keys import KeySpace
from celery_toolkit_core.log import event
from celery_toolkit_core.settings import read_settings

from .settings import PREFIX, ShowcaseSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celery import Celery

    from celery_toolkit_core.celery.deliveries import Delivery
    from celery_toolkit_core.celery.outcomes import Outcome

logger = logging.getLogger(__name__)

#: How a delivery may end so that nobody will try the task again. A task that was revoked was not to run at all.
DEATHS: dict[Outcome, str] = {
    "failure": "failed",
    "timeout": "time limit",
    "lost": "process lost",
    "rejected": "rejected",
}


def settings_of(app: Celery) -> ShowcaseSettings:
    """The application's ``showcase_*``.

    Raises:
        InvalidParameter: One of them cannot be meant.
    """
    return read_settings(ShowcaseSettings, PREFIX, app.conf.get)


def dead_letters_of(app: Celery) -> DeadLetters:
    """The list of an application's dead letters.

    Raises:
        InvalidParameter: A setting cannot be meant.
        ToolkitError: The application has no Redis.
    """
    settings = settings_of(app)
    url = find_redis_url(lambda key: getattr(app.conf, key, None), PREFIX)
    return DeadLetters(
        connect(url), KeySpace(settings.prefix), most=settings.dead_letters_most, keep=settings.dead_letters_keep
    )


class Undertaker(Follower):
    """Writes a letter for a delivery that ended in death: no round trip for any other.

    Args:
        letters: Where to.
    """

    def __init__(self, letters: DeadLetters) -> None:
        self._letters = letters

    def ended(self, delivery: Delivery, outcome: Outcome) -> None:
        """Keep the message, byte for byte, and what is known of its end."""
        reason = DEATHS.get(outcome)
        if reason is None:
            return
        # The id of the task: a second delivery of the same task replaces the letter, it does not add one.
        self._letters.put(
            DeadLetter(
                id=delivery.task_id,
                task=delivery.task_name,
                reason=reason,
                message=delivery.stored.to_bytes(),
                details=_details(delivery),
            )
        )
        event(logger, logging.ERROR, "task_dead", task=delivery.task_name, task_id=delivery.task_id, reason=reason)


class DeadLetterGate(Gate):
    """Lets every message proceed, and has its end followed; behind the gates that decide.

    Args:
        letters: Where the letters go.
    """

    rank = CONTROL + 10

    def __init__(self, letters: DeadLetters) -> None:
        self._undertaker = Undertaker(letters)

    def __call__(self, delivery: Delivery, proceed: Callable[[], None]) -> None:
        """Follow, and proceed."""
        delivery.follow(self._undertaker)
        proceed()


def gate_of(app: Celery) -> DeadLetterGate | None:
    """The gate of an application's tasks, one for all of them; ``None`` where dead letters are off or have no Redis.

    Raises:
        InvalidParameter: A setting cannot be meant.
    """
    if app not in _gates:
        warn_of_unknown_settings(app, PREFIX, ShowcaseSettings)
        _gates[app] = _make_gate(app)
    return _gates[app]


_gates: WeakKeyDictionary[Celery, DeadLetterGate | None] = WeakKeyDictionary()


def _make_gate(app: Celery) -> DeadLetterGate | None:
    if not settings_of(app).dead_letters:
        return None
    try:
        return DeadLetterGate(dead_letters_of(app))
    except InvalidParameter:
        raise
    except ToolkitError as error:  # results may be anywhere; without a Redis, a failure leaves its log line alone
        event(logger, logging.WARNING, "no_dead_letters", reason=str(error))
        return None


def replay(app: Celery, ids: Sequence[str] | None = None, *, task: str | None = None) -> list[str]:
    """Send dead messages again, each with its own task id, to the queue that it died in; its attempts begin anew.

    A letter is taken by one replay at a time and removed once its message has been sent, so that replaying twice sends
    once.

    Args:
        app: The application.
        ids: Which; by default all.
        task: Only letters of this task.

    Returns:
        The ids of what was sent.

    Raises:
        kombu.exceptions.OperationalError: The broker is away; what was not sent stays.
    """
    letters = dead_letters_of(app)
    wanted = [letter.id for letter in letters if task in (None, letter.task)] if ids is None else list(ids)
    sent: list[str] = []
    for start in range(0, len(wanted), _BATCH):
        sent += _replay_batch(app, letters, wanted[start : start + _BATCH], task)
    return sent


#: How many letters are taken at once; their lease of 30 s must outlast the sending of all.
_BATCH = 100


def _replay_batch(app: Celery, letters: DeadLetters, ids: list[str], task: str | None) -> list[str]:
    taken = letters.take(ids)
    wanted = [letter for letter in taken.letters if task in (None, letter.task)]
    sent: list[str] = []
    try:
        for letter in wanted:
            # Who replays means it to run: from its first attempt, now, and although it may have expired.
            message = StoredMessage.from_bytes(letter.message).with_headers(retries=0, eta=None, expires=None)
            message.publish(app, queue=letter.details.get("queue"))
            sent.append(letter.id)
    finally:
        if sent:
            letters.confirm(taken.token, sent)
        kept = [letter.id for letter in taken.letters if letter.id not in sent]
        if kept:
            letters.give_back(taken.token, kept)
    return sent


def _details(delivery: Delivery) -> dict[str, str]:
    headers = delivery.message.headers
    details = {
        "args": str(headers.get("argsrepr", "")),
        "kwargs": str(headers.get("kwargsrepr", "")),
        "retries": str(headers.get("retries", 0)),
        "queue": delivery.queue,
        "worker": str(getattr(delivery.consumer, "hostname", "")),
        "origin": str(headers.get("origin", "")),
    }
    error: Any = delivery.error
    if error is not None:
        exception = getattr(error.exception, "exc", error.exception)
        details |= {"exception": repr(exception), "traceback": str(error.traceback)}
    return details
