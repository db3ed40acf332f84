"""The short way from a script to the server: redis-py's connections without the layers above them.

In a call of ``Redis.execute_command`` the loopback and the server take a third of the time and the layers above the
connection (metrics, clients of other kinds, options of other commands) nearly all the rest. A lock or a limit is asked
for with every task, so scripts go this way: pool, retries, timeouts and health checks are redis-py's, as everywhere.
"""

from __future__ import annotations

import inspect
from types import FunctionType
from typing import TYPE_CHECKING, Any

import redis
import redis.client
from redis.connection import ConnectionPool

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def _pristine(name: str) -> Any:
    function = vars(redis.Redis).get(name)
    own = isinstance(function, FunctionType) and function.__code__.co_filename == redis.client.__file__
    return function if own else None


# Tracers (OpenTelemetry, Sentry and others) put their own function in the place of this one, and shall see our calls.
_EXECUTE = _pristine("execute_command")
# Before redis-py 5.3 a pool wants to know what for.
_WANTS_NAME = inspect.signature(ConnectionPool.get_connection).parameters["command_name"].default is inspect._empty


class Shortcut:
    """Sends commands of one client the short way, or through the client where that would pass something by.

    Args:
        client: Any client. The short way is for `redis.Redis` itself with a pool and the usual encoding.
    """

    def __init__(self, client: Any) -> None:
        self.client = client
        # Digest of a script -> its keys, and the packed words from EVALSHA to the last key.
        self._packed_keys: dict[str, tuple[Sequence[str], bytes]] = {}
        self._is_plain = (
            _EXECUTE is not None
            and isinstance(client, redis.Redis)
            and isinstance(client.connection_pool, ConnectionPool)
            and client.get_encoder().encoding.lower().replace("-", "") == "utf8"
        )

    def call(self, *command: str | bytes | float) -> Any:
        """Run a command whose answer needs no translation, such as EVALSHA.

        Raises:
            RedisError: What redis-py raises.
        """
        if not self._is_open:
            return self.client.execute_command(*command)
        return self._ask(str(command[0]), b"*%d\r\n" % len(command), command)

    def evalsha(self, sha: str, keys: Sequence[str], args: Sequence[str | bytes | float]) -> Any:
        """Run a script by its digest; keys that come as the same tuple each time are packed once.

        Raises:
            RedisError: What redis-py raises.
        """
        if not self._is_open:
            return self.client.execute_command("EVALSHA", sha, len(keys), *keys, *args)
        known, packed = self._packed_keys.get(sha, (None, b""))
        if known is not keys:
            packed = _pack(("EVALSHA", sha, len(keys), *keys), self.client.get_encoder().encode)
            if isinstance(keys, tuple):  # what can change is packed anew
                self._packed_keys[sha] = keys, packed
        return self._ask("EVALSHA", b"*%d\r\n%b" % (3 + len(keys) + len(args), packed), args)

    @property
    def _is_open(self) -> bool:
        client = self.client
        return (
            self._is_plain
            and type(client).execute_command is _EXECUTE
            and "execute_command" not in vars(client)
            and client.connection is None  # else one connection for all, behind a lock of its own
        )

    def _ask(self, name: str, head: bytes, rest: Sequence[str | bytes | float]) -> Any:
        pool = self.client.connection_pool
        connection = pool.get_connection(name) if _WANTS_NAME else pool.get_connection()
        try:
            packed = head + _pack(rest, connection.encoder.encode)

            def ask() -> Any:
                connection.send_packed_command((packed,))
                return connection.read_response()

            return connection.retry.call_with_retry(ask, lambda _: connection.disconnect())
        finally:
            pool.release(connection)


def _pack(command: Sequence[str | bytes | float], encode: Callable[[Any], bytes]) -> bytes:
    parts = []
    for each in command:
        data = each.encode() if type(each) is str else each if type(each) is bytes else encode(each)
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)
