"""The short way from a script to the server: redis-py's connections without the layers above them.

In a call of ``Redis.execute_command`` the loopback and the server take a third of the time and the layers above the
connection (metrics, clients of other kinds, options of other commands, the pool's look for unread bytes) nearly all the
rest. A lock or a limit is asked for with every task, so scripts go this way: retries, timeouts and health checks are
redis-py's, as everywhere, and so is the pool; of its connections a few stay with us between two calls.
"""

from __future__ import annotations

import inspect
import os
from types import FunctionType
from typing import TYPE_CHECKING, Any

import redis
import redis.client
from redis.connection import ConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from .lines import Line, pass_on

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .lines import Answers

    Word = str | bytes | float


def _pristine(name: str) -> Any:
    function = vars(redis.Redis).get(name)
    own = isinstance(function, FunctionType) and function.__code__.co_filename == redis.client.__file__
    return function if own else None


# Tracers (OpenTelemetry, Sentry and others) put their own function in the place of this one, and shall see our calls.
_EXECUTE = _pristine("execute_command")
# Before redis-py 5.3 a pool wants to know what for.
_WANTS_NAME = inspect.signature(ConnectionPool.get_connection).parameters["command_name"].default is inspect._empty
_MAY_MOVE = hasattr(redis.connection.AbstractConnection, "should_reconnect")

#: Answers that one connection keeps unread.
UNHEARD = 32

#: One of so many connections that a pool may have stays with us between two calls.
SHARE = 10


class Words:
    """Some words of a command that are the same each time, packed once.

    Args:
        *words: The words.
    """

    __slots__ = ("packed", "words")

    def __init__(self, *words: str | bytes | int) -> None:
        self.words = words
        self.packed, _ = _pack(words, bytes)


class Shortcut:
    """Sends commands of one client the short way, or through the client where that would pass something by.

    Args:
        client: Any client. The short way is for `redis.Redis` itself with a pool and the usual encoding.
    """

    def __init__(self, client: Any) -> None:
        self.client = client
        self._is_plain = (
            _EXECUTE is not None
            and isinstance(client, redis.Redis)
            and isinstance(client.connection_pool, ConnectionPool)
            and client.get_encoder().encoding.lower().replace("-", "") == "utf8"
        )
        self._kept = _kept(client.connection_pool) if self._is_plain else None
        self._encode = client.get_encoder().encode if self._is_plain else bytes

    def call(self, *command: Word) -> Any:
        """Run a command whose answer needs no translation, such as EVALSHA.

        Raises:
            RedisError: What redis-py raises.
        """
        if not self._is_open():
            return self.client.execute_command(*command)
        packed, count = _pack(command, self._encode)
        return self._ask(str(command[0]), b"*%d\r\n%b" % (count, packed))

    def evalsha(
        self,
        sha: str,
        keys: Sequence[str | Words],
        args: Sequence[Word | Words],
        *,
        meanwhile: Callable[[], None] | None = None,
    ) -> Any:
        """Run a script by its digest.

        Args:
            sha: The digest.
            keys: Its keys.
            args: Its arguments.
            meanwhile: What the caller has to do anyway, and may do while the answer is on its way. It is called once,
                or not at all where we do not wait for the answer ourselves.

        Raises:
            RedisError: What redis-py raises.
        """
        if not self._is_open():
            keys = flat(keys)
            return self.client.execute_command("EVALSHA", sha, len(keys), *keys, *flat(args))
        return self._ask("EVALSHA", self._evalsha(sha, keys, args), meanwhile)

    def tell(
        self, sha: str, keys: Sequence[str | Words], args: Sequence[Word | Words], heard: Callable[[Any], None]
    ) -> bool:
        """Send a script to be run now, and read its answer with that to the next question or in `hear`.

        Args:
            sha: The script's digest.
            keys: Its keys.
            args: Its arguments.
            heard: Gets the answer, or the exception that stands in its place; in any thread. After another one than a
                `ResponseError` it is not known whether the script has run.

        Returns:
            Whether it was sent; not where we do not read the answers ourselves, or no connection is at hand.
        """
        kept = self._kept
        if not kept or not self._is_open():
            return False
        try:
            line = kept.pop()
        except IndexError:  # another thread was quicker
            return False
        if line.connection.pid != _process[0]:
            return False  # it is the parent's
        if len(line.unheard) >= UNHEARD:
            kept.append(line)
            return False
        try:
            line.send(self._evalsha(sha, keys, args))
        except BaseException as error:
            answers: Answers = []
            self._drop(line, error, answers)
            pass_on(answers)
            if isinstance(error, RedisConnectionError):
                return False
            raise
        line.unheard.append(heard)
        kept.append(line)
        return True

    def hear(self) -> None:
        """Read what `tell` has left to be read; it waits for the server as any question does."""
        kept = self._kept or []
        for line in tuple(kept):
            if not line.unheard or line.connection.pid != _process[0]:
                continue
            try:
                kept.remove(line)
            except ValueError:  # another thread has it, and reads them
                continue
            answers: Answers = []
            try:
                line.hear(answers)
            except BaseException as error:
                self._drop(line, error, answers)
                if not isinstance(error, RedisError):
                    raise
            else:
                kept.append(line)
            finally:
                pass_on(answers)

    def _evalsha(self, sha: str, keys: Sequence[str | Words], args: Sequence[Word | Words]) -> bytes:
        packed_keys, count = _pack(keys, self._encode)
        packed, more = _pack(args, self._encode)
        head = b"*%d\r\n$7\r\nEVALSHA\r\n$40\r\n%b\r\n" % (3 + count + more, sha.encode())
        return b"%b$%d\r\n%d\r\n%b%b" % (head, len(str(count)), count, packed_keys, packed)

    def _is_open(self) -> bool:
        client = self.client
        return (
            self._is_plain
            and type(client).execute_command is _EXECUTE
            and "execute_command" not in client.__dict__
            and client.connection is None  # else one connection for all, behind a lock of its own
        )

    def _ask(self, name: str, packed: bytes, meanwhile: Callable[[], None] | None = None) -> Any:
        kept = self._kept
        while kept:
            try:
                line = kept.pop()
            except IndexError:  # another thread was quicker
                break
            connection = line.connection
            if connection.pid != _process[0]:
                continue  # it is the parent's
            answers: Answers = []
            try:
                answer = line.ask(packed, meanwhile, answers)
            except ResponseError:
                kept.append(line)
                raise
            except RedisConnectionError as error:
                # Most likely the server closed it while it was idle.
                self._drop(line, error, answers)
                break
            except BaseException as error:
                self._drop(line, error, answers)
                raise
            else:
                if _MAY_MOVE and connection.should_reconnect():
                    self._drop(line, None, answers)  # the server asks us to go elsewhere
                else:
                    kept.append(line)
                return answer
            finally:
                if answers:
                    pass_on(answers)
        return self._ask_of_pool(name, packed)

    def _drop(self, line: Line, error: BaseException | None, answers: Answers) -> None:
        # An answer may still come, and must not be taken for that to a later question.
        line.connection.disconnect()
        self.client.connection_pool.release(line.connection)
        line.fail(error, answers)

    def _ask_of_pool(self, name: str, packed: bytes) -> Any:
        pool, kept = self.client.connection_pool, self._kept
        connection = pool.get_connection(name) if _WANTS_NAME else pool.get_connection()
        answered = False

        def ask() -> Any:
            connection.send_packed_command((packed,))
            return connection.read_response()

        try:
            answer = connection.retry.call_with_retry(ask, lambda _: connection.disconnect())
            answered = True
            return answer
        finally:
            if answered and kept is not None and len(kept) < pool.max_connections // SHARE:
                kept.append(Line(connection))
            else:
                pool.release(connection)


def flat(words: Sequence[Word | Words]) -> list[Any]:
    """The words one by one."""
    return [word for each in words for word in (each.words if isinstance(each, Words) else (each,))]


def _kept(pool: Any) -> list[Line] | None:
    """The connections of a pool that stay with us; none where the pool wants to see them after each call."""
    if type(pool) is not ConnectionPool or pool.connection_kwargs.get("credential_provider") is not None:
        return None
    kept: list[Line] = pool.__dict__.setdefault("_celery_toolkit_kept", [])
    return kept


def _pack(command: Sequence[Any], encode: Callable[[Any], bytes]) -> tuple[bytes, int]:
    """The words as they travel, and how many they are."""
    parts, count = [], len(command)
    for each in command:
        kind = type(each)
        if kind is str:
            data = each.encode()
        elif kind is bytes:
            data = each
        elif kind is int:
            data = b"%d" % each
        elif kind is Words:
            parts.append(each.packed)
            count += len(each.words) - 1
            continue
        else:
            data = encode(each)
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts), count


# Whose process this is; looked up for each call, and the system's answer takes longer than a list's.
_process = [os.getpid()]


def _is_another_process() -> None:
    _process[0] = os.getpid()


os.register_at_fork(after_in_child=_is_another_process)
