"""The least that the Redis user of the membership must be allowed to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from celery_toolkit_core.keys import KeySpace

#: What clients send and scripts call, in the words of ``ACL SETUSER``.
COMMANDS = {
    "to see whether the server throws keys away": ("info",),
    "to run scripts": ("evalsha", "eval", "script|load", "time"),
    "in scripts": (
        *("get", "set", "del", "exists", "pexpire"),
        *("hget", "hset", "hdel", "hgetall", "hkeys", "hmget"),
        *("sadd", "srem", "sismember"),
        *("zadd", "zrem", "zscore", "zcount", "zrange", "zrangebyscore", "zremrangebyscore"),
    ),
}


def rule(user: str, keys: KeySpace) -> str:
    """The line for ``redis-cli`` that makes this user; the password is put in by hand.

    Args:
        user: Its name.
        keys: Where the ring lives.
    """
    words = sorted({f"+{command}" for group in COMMANDS.values() for command in group})
    # Servers name the commands of a connection differently; none that is dangerous is needed.
    connect = "+@connection -@admin -@dangerous"
    return " ".join(["ACL SETUSER", user, "reset on >PASSWORD", f"~{keys.tag}:*", connect, *words])
