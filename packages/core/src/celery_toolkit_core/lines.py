"""Connections that stay with us between two calls, and the answers on them that nobody has read yet."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

if TYPE_CHECKING:
    from collections.abc import Callable

    #: Who waits for an answer, and that answer or the error in its place.
    Answers = list[tuple[Callable[[Any], None], Any]]

logger = logging.getLogger(__name__)


class Line:
    """A connection that stays with us between two calls, and the answers on it that nobody has read yet.

    Args:
        connection: The connection.

    Attributes:
        unheard: Who waits for these answers, in their order.
    """

    __slots__ = ("connection", "unheard")

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.unheard: list[Callable[[Any], None]] = []

    def send(self, packed: bytes) -> None:
        """Send a command."""
        if self.unheard:
            # An unread answer would be taken for that to the PING of a health check.
            self._check()
        self.connection.send_packed_command((packed,), check_health=not self.unheard)

    def ask(self, packed: bytes, meanwhile: Callable[[], None] | None, answers: Answers) -> Any:
        """Send a command and read its answer, behind those that are still to be read: they are added to `answers`."""
        self.send(packed)
        if meanwhile is not None:
            meanwhile()
        if self.unheard:
            self.hear(answers)
        return self.connection.read_response()

    def hear(self, answers: Answers) -> None:
        """Read the answers that nobody has read, into `answers`."""
        self._check()
        while self.unheard:
            try:
                answer = self.connection.read_response()
            except ResponseError as error:
                answer = error
            answers.append((self.unheard.pop(0), answer))

    def _check(self) -> None:
        # Who closes a client closes this connection, too; redis-py would open it anew, and the answers are gone.
        if self.connection._sock is None:
            raise RedisConnectionError("the connection was closed before its answers were read")

    def fail(self, error: BaseException | None, answers: Answers) -> None:
        """Nobody will read them: the error stands in their place."""
        lost = error if isinstance(error, RedisError) else RedisConnectionError("its connection was dropped")
        answers += [(heard, lost) for heard in self.unheard]
        self.unheard.clear()


def pass_on(answers: Answers) -> None:
    """Give answers to those who wait for them; when the connection is back with the others, for they may ask again."""
    for heard, answer in answers:
        try:
            heard(answer)
        except Exception:
            logger.exception("An answer of Redis was lost on %r", heard)
