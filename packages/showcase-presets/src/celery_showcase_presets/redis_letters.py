"""Dead letters in Redis, and how they are sent again."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from celery_toolkit_core.celery.messages import StoredMessage
from celery_toolkit_core.connection import DRIVER_ERRORS, explain
from celery_toolkit_core.deadletters import DeadLetters
from celery_toolkit_core.errors import Quarantined
from celery_toolkit_core.keys import KeySpace
from celery_toolkit_core.log import event

from .again import publish_again

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from celery import Celery

    from celery_toolkit_core.deadletters import DeadLetter

    from .settings import ShowcaseSettings

logger = logging.getLogger(__name__)

#: Header of a replayed message: the letter that it came from, and which copy of it this is. A retry copies it.
REPLAY = "showcase_replay"

#: Seconds for which a replay holds the letters that it sends.
LEASE = 60.0

#: How many letters are taken at once; the lease must outlast the sending of all.
BATCH = 500


class RedisLetters(DeadLetters):
    """The dead letters of an application, as a list in Redis.

    To send a message and to remove its letter are two steps on two servers. A replay that is killed between them has
    left a letter whose message is under way; the next replay sends a second copy. Each copy has a mark of its own, and
    the workers let in the copy that comes first and no other (`admit`).

    Args:
        client: A Redis client that answers bytes.
        settings: Prefix, number and age.
        lease: Seconds for which a replay holds what it sends.
    """

    def __init__(self, client: Any, settings: ShowcaseSettings, *, lease: float = LEASE) -> None:
        keys = KeySpace(settings.prefix)
        super().__init__(client, keys, most=settings.dead_letters_most, keep=settings.dead_letters_keep)
        self._client = client
        self._space = keys
        self._remember_ms = round(settings.dead_letters_keep * 1000)
        self._lease = lease

    def prepare(self) -> None:
        """Nothing: a list in Redis comes with its first letter."""

    def gets_rejected(self, queue: str) -> bool:
        """Never: Redis forgets a rejected message."""
        return False

    def find(self, task_id: str) -> DeadLetter | None:
        """The letter of a task."""
        return next((letter for letter in self if letter.id == task_id), None)

    def admit(self, letter: str, copy: str) -> bool:
        """Whether this copy of a replayed message may run: the first that asks, again and again, and no other.

        Raises:
            RedisUnavailable: Our Redis did not answer.
        """
        key = self._space.key("replayed", letter)
        try:
            # One command, and the same answer when it is sent twice because the first answer was lost.
            return bool(self._client.set(key, copy, nx=True, px=self._remember_ms)) or (
                self._client.get(key) == copy.encode()
            )
        except DRIVER_ERRORS as error:
            raise explain(error, self._client) from error

    def replay(self, app: Celery, ids: Iterable[str]) -> list[str]:
        """Send the messages of these letters again, each to the queue that it died in; see `dead_letters.replay`."""
        wanted = list(dict.fromkeys(ids))
        sent: list[str] = []
        for start in range(0, len(wanted), BATCH):
            sent += self._replay(app, wanted[start : start + BATCH])
        return sent

    def _replay(self, app: Celery, ids: Sequence[str]) -> list[str]:
        taken = self.take(ids, lease=self._lease)
        sent: list[str] = []
        try:
            for letter in taken.letters:
                message = readable_message(letter)
                if message is None:
                    continue
                message = message.with_headers(**{REPLAY: [f"{letter.id}/{letter.cursor}", uuid4().hex]})
                if publish_again(app, message, partial(message.publish, app, queue=letter.details.get("queue"))):
                    sent.append(letter.id)
        finally:
            if sent:
                self.confirm(taken.token, sent)
            kept = {letter.id for letter in taken.letters}.difference(sent)
            if kept:
                self.give_back(taken.token, sorted(kept))
        return sent


def readable_message(letter: DeadLetter) -> StoredMessage | None:
    """The message of a letter as it is sent again: from its first attempt, now, and although it may have expired.

    None, and a line in the log, when the letter's bytes cannot be read.
    """
    try:
        message = StoredMessage.from_bytes(letter.message)
    except Quarantined as error:
        event(logger, logging.ERROR, "letter_not_readable", task=letter.task, task_id=letter.id, reason=str(error))
        return None
    # What the broker and its last life have written on it.
    gone = [name for name in message.headers if name.startswith(_OF_ITS_LAST_LIFE)]
    return message.with_headers(retries=0, eta=None, expires=None, **dict.fromkeys(gone))


_OF_ITS_LAST_LIFE = ("showcase_", "x-death", "x-delivery-count", "x-first-death", "x-last-death")
