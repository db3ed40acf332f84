"""One Redis client from what the user gives: a URL of any allowed scheme, or a client."""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import redis
import redis.exceptions
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from .errors import InvalidParameter, RedisFull, RedisUnavailable, ToolkitError
from .parameters import nearest, seconds
from .urls import RedisAddress, find_redis_url, mask, parse, url_options

if TYPE_CHECKING:
    import logging

__all__ = [
    "DRIVER_ERRORS",
    "connect",
    "explain",
    "find_redis_url",
    "mask",
    "ping",
    "server_name",
    "warn_if_evicting",
]

#: Seconds that a connect, and each call after it, may take.
TIMEOUT = 2.0

#: All that redis-py raises of its own; its cluster error stands outside its tree.
DRIVER_ERRORS = (redis.exceptions.RedisError, redis.exceptions.RedisClusterException)

_GONE = (
    redis.exceptions.ConnectionError,
    redis.exceptions.TimeoutError,
    redis.exceptions.ReadOnlyError,  # a primary that has become a replica
    redis.exceptions.ClusterDownError,
    redis.exceptions.RedisClusterException,
    redis.exceptions.InvalidResponse,  # something else listens there
)

#: Options that only a Sentinel address understands.
_SENTINEL_OPTIONS = ("master_name", "min_other_sentinels", "sentinel_kwargs", "sentinel_username", "sentinel_password")

#: What the address, `timeout` or our own rules decide; redis-py would take them a second time.
_DECIDED = {
    "self",
    "host",
    "port",
    "connection_pool",
    "unix_socket_path",
    "decode_responses",
    "ssl",
    "retry_on_timeout",
    "charset",
}

_VERIFY = {"CERT_NONE": "none", "CERT_OPTIONAL": "optional", "CERT_REQUIRED": "required"}


def connect(source: Any, *, parameter: str = "redis_url", timeout: float = TIMEOUT, **options: Any) -> Any:
    """A client of the Redis that `source` names.

    Nothing is sent yet, except to a cluster, whose map is needed to build the client. `ping` finds out whether the
    server is there. The client may be shared by threads and is safe to use after a fork: redis-py opens new sockets.
    A call whose connection breaks is sent once more (our scripts give the same answer when replayed); a call that
    times out is not, so that a dead server is an error within `timeout`.

    Args:
        source: A URL, or a client that answers bytes. Schemes: ``redis``, ``rediss`` (TLS), ``unix``,
            ``redis+socket``, ``sentinel`` (hosts separated by ``;``), and for a cluster ``redis+cluster`` or
            ``rediss+cluster`` (likewise). A client keeps its own timeouts and retries.
        parameter: How the user calls `source`, for errors.
        timeout: Seconds that the connect and each call may take.
        **options: Arguments of `redis.Redis`, such as ``max_connections`` or ``ssl_ca_certs``; for Sentinel also
            ``master_name``, ``min_other_sentinels``, ``sentinel_username``, ``sentinel_password`` and Celery's
            ``sentinel_kwargs``. They win over the URL's query, in which names that redis-py does not know are left
            to Celery.

    Raises:
        InvalidParameter: `source` is neither, or a client with ``decode_responses``; an option is unknown or wrong.
        RedisUnavailable: No node of the cluster answers.
    """
    if not isinstance(source, str):
        return _checked_client(parameter, source)
    address = parse(parameter, source)
    timeout = seconds("timeout", timeout)
    known = _known_options() | set(_SENTINEL_OPTIONS)
    for name in options:
        if name not in known:
            # Its value stays out of the message: it may be a misspelt password.
            raise InvalidParameter(name, "...", f"redis-py has no such option{nearest(name, known)}")
    merged = url_options(address.query) | options
    if address.kind != "sentinel":
        merged = {name: value for name, value in merged.items() if name not in _SENTINEL_OPTIONS}
    try:
        return _build(parameter, address, timeout, merged)
    except ToolkitError:
        raise
    except DRIVER_ERRORS as error:
        raise RedisUnavailable(
            f"Redis cluster {mask(source)} cannot be reached: {_one_line(error)}", server=mask(source)
        ) from error
    except (TypeError, ValueError) as error:
        raise InvalidParameter(parameter, mask(source), f"redis-py refused an option of it: {error}") from None


def ping(client: Any) -> None:
    """Ask the server for a sign of life.

    Raises:
        RedisUnavailable: There was none; one line that names the server without its password.
    """
    try:
        client.ping()
    except DRIVER_ERRORS as error:
        raise explain(error, client) from error


def explain(error: Exception, client: Any) -> Exception:
    """The house error for what redis-py raised, or `error` itself when it is not about the server's state.

    Use it as ``raise explain(error, client) from error`` where `DRIVER_ERRORS` are caught.
    """
    server = server_name(client)
    if isinstance(error, redis.exceptions.AuthenticationError):
        return RedisUnavailable(f"Redis at {server} refused the user or password: {_one_line(error)}", server=server)
    if isinstance(error, MasterNotFoundError):
        # redis-py's own text prints whole clients.
        message = f"Redis at {server} cannot be reached: no sentinel answers with a living master; check that they run"
        return RedisUnavailable(f"{message} and that master_name fits", server=server)
    if isinstance(error, _GONE):
        return RedisUnavailable(
            f"Redis at {server} cannot be reached ({type(error).__name__}: {_one_line(error)}); "
            "check that it runs and that the URL fits",
            server=server,
        )
    # Before version 7 the server wraps a script's OOM in an error of another class.
    if isinstance(error, redis.exceptions.OutOfMemoryError) or (
        isinstance(error, redis.exceptions.ResponseError) and "OOM" in str(error)
    ):
        return RedisFull(f"Redis at {server} is out of memory; raise maxmemory or remove data", server=server)
    return error


def server_name(client: Any) -> str:
    """``host:port/db``, the socket's path, or what Sentinel and cluster clients go by; never a password."""
    nodes = getattr(client, "nodes_manager", None)
    if nodes is not None:
        return "cluster " + (",".join(sorted(nodes.startup_nodes)) or "without a living node")
    pool = getattr(client, "connection_pool", None)
    if pool is None:
        return type(client).__name__
    options = pool.connection_kwargs
    if getattr(pool, "service_name", None) is not None:
        return f"sentinel {pool.service_name}/{options.get('db') or 0}"
    if options.get("path"):
        return f"unix:{options['path']}/{options.get('db') or 0}"
    host = options.get("host", "localhost")
    if ":" in host:
        host = f"[{host}]"
    return f"{host}:{options.get('port', 6379)}/{options.get('db') or 0}"


def warn_if_evicting(client: Any, logger: logging.Logger) -> bool:
    """Warn once per call when the server may throw our keys away; say whether it may.

    A server that does not let us look (ACL, managed services) or is away is not warned about.
    """
    try:
        memory = client.info("memory")
    except DRIVER_ERRORS:
        logger.debug("maxmemory-policy of Redis at %s is not readable", server_name(client))
        return False
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy == "noeviction" or not memory.get("maxmemory"):
        return False
    logger.warning(
        "Redis at %s may evict locks and queued work (maxmemory-policy %s); set it to noeviction",
        server_name(client),
        policy,
        extra={"event": "redis_evicting", "server": server_name(client), "policy": policy},
    )
    return True


def _build(parameter: str, address: RedisAddress, timeout: float, options: dict[str, Any]) -> Any:
    if "ssl_cert_reqs" in options:
        options["ssl_cert_reqs"] = _verification(options["ssl_cert_reqs"])
    common: dict[str, Any] = {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "username": address.username,
        "password": address.password,
    }
    if address.tls or any(name.startswith("ssl_") for name in options):
        common["ssl"] = True
        # redis-py before 6 did not compare the host name; with "none" there is nothing to compare.
        common["ssl_check_hostname"] = options.get("ssl_cert_reqs") != "none"
    common |= options
    if address.kind == "cluster":
        for name in ("db", "single_connection_client"):
            common.pop(name, None)
        if address.db:
            raise InvalidParameter(parameter, address.masked, "a cluster has database 0 only")
        nodes = [ClusterNode(host, port) for host, port in address.hosts]  # type: ignore[no-untyped-call]  # untyped there
        common.setdefault("retry", Retry(NoBackoff(), 1))
        return RedisCluster(startup_nodes=nodes, **common)
    common["db"] = common.get("db", address.db)
    if address.kind == "sentinel":
        return _sentinel_client(parameter, address, common)
    common.setdefault("retry", Retry(NoBackoff(), 1, (redis.exceptions.ConnectionError,)))
    # Before redis-py 6 a client with a retry of its own tried nothing again unless this names it.
    common.setdefault("retry_on_error", [redis.exceptions.ConnectionError])
    if address.kind == "unix":
        return redis.Redis(unix_socket_path=address.path, **common)
    host, port = address.hosts[0]
    return redis.Redis(host=host, port=port, **common)


def _sentinel_client(parameter: str, address: RedisAddress, options: dict[str, Any]) -> Any:
    master_name = options.pop("master_name", None)
    if not master_name:
        raise InvalidParameter(
            parameter, address.masked, "add ?master_name=..., or set master_name in Celery's transport options"
        )
    # The sentinels are asked one after the other: together they may take as long as one call.
    share = options["socket_connect_timeout"] / len(address.hosts)
    asking = {"socket_timeout": share, "socket_connect_timeout": share, "retry": Retry(NoBackoff(), 0)}
    asking |= {name: value for name, value in options.items() if name == "ssl" or name.startswith("ssl_")}
    asking |= options.pop("sentinel_kwargs", None) or {}
    for name in ("username", "password"):
        if value := options.pop(f"sentinel_{name}", None):
            asking[name] = value
    sentinel = Sentinel(  # type: ignore[no-untyped-call]  # redis-py leaves its Sentinel without types
        list(address.hosts),
        min_other_sentinels=int(options.pop("min_other_sentinels", 0)),
        sentinel_kwargs=asking,
    )
    # No second try here: "no master found" counts as a broken connection and would multiply the wait.
    options.setdefault("retry", Retry(NoBackoff(), 0))
    return sentinel.master_for(master_name, **options)  # type: ignore[no-untyped-call]  # likewise


def _checked_client(parameter: str, client: Any) -> Any:
    remedy = "give a redis:// URL or a redis.Redis client"
    kind = f"{type(client).__module__}.{type(client).__qualname__}"
    # By its methods, so that clients of Valkey and wrappers that count or trace are taken too.
    if isinstance(client, type) or not all(hasattr(client, name) for name in ("register_script", "get_encoder")):
        raise InvalidParameter(parameter, kind, remedy)
    if inspect.iscoroutinefunction(client.execute_command):
        raise InvalidParameter(parameter, kind, f"{remedy}, not an asyncio one")
    if hasattr(client, "command_stack"):
        raise InvalidParameter(parameter, kind, f"{remedy}, not a pipeline")
    if client.get_encoder().decode_responses:
        raise InvalidParameter(
            parameter, server_name(client), "our values are bytes: give a client without decode_responses=True"
        )
    return client


@lru_cache(maxsize=1)
def _known_options() -> frozenset[str]:
    return frozenset(inspect.signature(redis.Redis.__init__).parameters) - _DECIDED


def _verification(value: Any) -> Any:
    """An `ssl.VerifyMode`, its name, or redis-py's word, as redis-py's word."""
    word = getattr(value, "name", value)
    word = _VERIFY.get(word, word)
    if word not in _VERIFY.values():
        raise InvalidParameter("ssl_cert_reqs", value, "give required, optional or none")
    return word


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
