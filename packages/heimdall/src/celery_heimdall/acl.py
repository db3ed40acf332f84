"""The least that a Redis user of ours must be allowed to do."""

from __future__ import annotations

from celery_toolkit_core.keys import KeySpace

#: Commands by what they are needed for, in the words of ``ACL SETUSER``.
COMMANDS = {
    "to see whether the server throws keys away, and how many replicas have a lock": ("info", "wait"),
    "to run scripts": ("evalsha", "eval", "script|load"),
    "in scripts": (
        *("time", "get", "set", "del", "exists", "incr", "pexpire", "pexpireat", "persist", "pttl"),
        *("hdel", "hget", "hgetall", "hmget", "hset"),
        *("zadd", "zcount", "zrange", "zrangebyscore", "zrem", "zremrangebyscore", "zscore"),
        *("lindex", "lpop", "lpos", "lpush", "lrange", "lset", "ltrim", "rpush"),
    ),
    "for operators and metrics": ("scan", "hscan", "hexists", "hlen", "zcard", "zrank"),
}


def rule(user: str, namespace: str) -> str:
    """The line for ``redis-cli`` that makes this user; the password is put in by hand.

    Args:
        user: Its name.
        namespace: ``heimdall_namespace``.
    """
    words = sorted({f"+{command}" for group in COMMANDS.values() for command in group})
    # Servers name the commands of a connection differently; none that is dangerous is needed.
    connect = "+@connection -@admin -@dangerous"
    return " ".join(["ACL SETUSER", user, "reset on >PASSWORD", f"~{KeySpace(namespace).tag}:*", connect, *words])
