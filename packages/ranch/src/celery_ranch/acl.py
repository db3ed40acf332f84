"""The least that a Redis user of ours must be allowed to do."""

from __future__ import annotations

from celery_toolkit_core.keys import KeySpace

#: What scripts and clients send, in the words of ``ACL SETUSER``.
COMMANDS = {
    "to see whether the server throws keys away": ("info",),
    "to run scripts": ("evalsha", "eval", "script|load", "time"),
    "in scripts": (
        *("hget", "hset", "hdel", "hexists", "hlen", "hincrby", "hgetall"),
        *("zadd", "zrem", "zcard", "zscore", "zrange", "zrangebyscore", "zrangebylex", "zlexcount", "zremrangebyscore"),
        *("lpush", "ltrim"),
    ),
    "for monitoring and clients' data": ("hscan", "zrangebylex", "lrange"),
    "for ranch_min_replicas": ("wait",),
    "for simulations": ("expire", "del"),
}


def rule(user: str, prefix: str) -> str:
    """The line for ``redis-cli`` that makes this user; the password is put in by hand.

    Args:
        user: Its name.
        prefix: ``ranch_redis_prefix``.
    """
    words = sorted({f"+{command}" for group in COMMANDS.values() for command in group})
    pattern = f"~{KeySpace(prefix).tag.rpartition(':')[0]}:*"
    # Servers name the commands of a connection differently; none that is dangerous is needed.
    connect = "+@connection -@admin -@dangerous"
    return " ".join(["ACL SETUSER", user, "reset on >PASSWORD", pattern, connect, *words])
