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
    from collections.abc import Callable


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
        client = self.client
        if not self._is_plain or type(client).execute_command is not _EXECUTE or "execute_command" in vars(client):
            return client.execute_command(*command)
        if client.connection is not None:  # one connection for all, behind a lock of its own
            return client.execute_command(*command)
        pool = client.connection_pool
        connection = pool.get_connection(command[0]) if _WANTS_NAME else pool.get_connection()
        try:
            packed = _pack(command, connection.encoder.encode)

            def ask() -> Any:
                connection.send_packed_command((packed,))
                return connection.read_response()

            return connection.retry.call_with_retry(ask, lambda _: connection.disconnect())
        finally:
            pool.release(connection)


def _pack(command: tuple[str | bytes | float, ...], encode: Callable[[Any], bytes]) -> bytes:
    parts = [b"*%d\r\n" % len(command)]
    for each in command:
        data = each.encode() if type(each) is str else each if type(each) is bytes else encode(each)
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)
