"""One Redis client from what the user gives (to be completed)."""

from __future__ import annotations

from typing import Any


def server_name(client: Any) -> str:
    """``host:port/db`` or the socket's path of a client, never its password."""
    pool = getattr(client, "connection_pool", None)
    if pool is None:
        return type(client).__name__
    options = pool.connection_kwargs
    if "path" in options:
        return f"unix:{options['path']}"
    return f"{options.get('host', 'localhost')}:{options.get('port', 6379)}/{options.get('db', 0)}"
