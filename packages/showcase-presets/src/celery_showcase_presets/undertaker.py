"""In the worker: who writes a dead letter, and who lets a replayed message in once."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from celery_toolkit_core.celery.deliveries import CONTROL, TURN, Follower, Gate
from celery_toolkit_core.celery.worker import warn_of_unknown_settings
from celery_toolkit_core.deadletters import DeadLetter
from celery_toolkit_core.errors import InvalidParameter, ToolkitError
from celery_toolkit_core.log import event

from .dead_letters import dead_letters_of, settings_of
from .redis_letters import REPLAY, RedisLetters
from .settings import PREFIX, ShowcaseSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Celery

    from celery_toolkit_core.celery.deliveries import Delivery
    from celery_toolkit_core.celery.outcomes import Outcome

    from .dead_letters import Letters

logger = logging.getLogger(__name__)

#: How a delivery may end so that nobody will try the task again. A task that was revoked was not to run at all.
DEATHS: dict[Outcome, str] = {
    "failure": "failed",
    "timeout": "time limit",
    "lost": "process lost",
    "rejected": "rejected",
}

#: Header of a task whose process has died: how many times. A retry copies it.
KILLS = "showcase_kills"

_ATTRIBUTE = "_showcase_gates"
_BURIED = "showcase: buried"


class Undertaker(Follower):
    """Writes a letter for a delivery that ends in death: no round trip for any other.

    `PresetRequest` calls `bury` before Celery acknowledges the message, so that a kill in between leaves both rather
    than nothing; what never became a request is told by `ended`.

    Args:
        letters: Where to.
    """

    def __init__(self, letters: Letters) -> None:
        self._letters = letters

    def ended(self, delivery: Delivery, outcome: Outcome) -> None:
        """Bury what nobody has buried."""
        self.bury(delivery, outcome, delivery.error)

    def bury(self, delivery: Delivery, outcome: Outcome, error: Any) -> None:
        """Keep the message, byte for byte, and what is known of its end; once, and not at all for other ends."""
        reason = DEATHS.get(outcome)
        if reason is None or _BURIED in delivery.marks:
            return
        delivery.marks.add(_BURIED)
        if outcome == "rejected" and delivery.request is not None and self._letters.gets_rejected(delivery.queue):
            return
        fields = {"task": delivery.task_name, "task_id": delivery.task_id, "reason": reason}
        try:
            # The id of the task: a second delivery of the same task replaces the letter, it does not add one.
            self._letters.put(
                DeadLetter(
                    id=delivery.task_id,
                    task=delivery.task_name,
                    reason=reason,
                    message=delivery.stored.to_bytes(),
                    details=_details(delivery, outcome, error),
                )
            )
        except Exception:
            # The task has failed all the same, and its result must say so.
            logger.exception("dead_letter_lost", extra={"event": "dead_letter_lost", **fields})
        event(logger, logging.ERROR, "task_dead", **fields)


class DeadLetterGate(Gate):
    """Lets every message proceed, and has its end followed; behind the gates that decide.

    Args:
        letters: Where the letters go.
    """

    rank = CONTROL + 10

    def __init__(self, letters: Letters) -> None:
        self.undertaker = Undertaker(letters)

    def __call__(self, delivery: Delivery, proceed: Callable[[], None]) -> None:
        """Follow, and proceed."""
        delivery.follow(self.undertaker)
        proceed()


class ReplayGate(Gate):
    """Lets one copy of a replayed message in, before any other gate: no round trip for any other message.

    Args:
        letters: Who remembers which copy it was.
    """

    rank = TURN - 5

    def __init__(self, letters: RedisLetters) -> None:
        self._letters = letters

    def __call__(self, delivery: Delivery, proceed: Callable[[], None]) -> None:
        """Proceed, or drop the copy of a replay that was killed after it had sent and before it had noted that."""
        copy = delivery.message.headers.get(REPLAY)
        if not copy or self._letters.admit(*copy):
            proceed()
            return
        event(logger, logging.WARNING, "replay_dropped", task=delivery.task_name, task_id=delivery.task_id)
        delivery.hand_back("ended")


def gates_of(app: Celery) -> tuple[Gate, ...]:
    """The gates of an application's tasks, the same for all; none where dead letters are off or have no store.

    Raises:
        InvalidParameter: A setting cannot be meant.
    """
    found: tuple[Gate, ...] | None = app.__dict__.get(_ATTRIBUTE)
    if found is None:
        warn_of_unknown_settings(app, PREFIX, ShowcaseSettings)
        found = app.__dict__[_ATTRIBUTE] = _make_gates(app)
    return found


def undertaker_of(app: Celery) -> Undertaker | None:
    """The undertaker of this worker; ``None`` where there are no dead letters."""
    return next((gate.undertaker for gate in gates_of(app) if isinstance(gate, DeadLetterGate)), None)


def _make_gates(app: Celery) -> tuple[Gate, ...]:
    if not settings_of(app).dead_letters:
        return ()
    try:
        letters = dead_letters_of(app)
    except InvalidParameter:
        raise
    except ToolkitError as error:  # results may be anywhere; without a Redis, a failure leaves its log line alone
        event(logger, logging.WARNING, "no_dead_letters", reason=str(error))
        return ()
    letters.prepare()
    gate = DeadLetterGate(letters)
    return (ReplayGate(letters), gate) if isinstance(letters, RedisLetters) else (gate,)


def _details(delivery: Delivery, outcome: Outcome, error: Any) -> dict[str, str]:
    headers = delivery.message.headers
    details = {
        "args": str(headers.get("argsrepr", "")),
        "kwargs": str(headers.get("kwargsrepr", "")),
        "retries": str(headers.get("retries", 0)),
        "kills": str(int(headers.get(KILLS, 0)) + (outcome == "lost")),
        "queue": delivery.queue,
        "worker": str(getattr(delivery.consumer, "hostname", "")),
        "origin": str(headers.get("origin", "")),
    }
    if error is not None:
        exception = getattr(error.exception, "exc", error.exception)
        details |= {"exception": repr(exception), "traceback": str(error.traceback)}
    return details
