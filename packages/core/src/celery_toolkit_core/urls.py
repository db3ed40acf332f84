"""Redis URLs as Celery's users write them: parsed, found in the settings, and shown without secrets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from .errors import InvalidParameter, ToolkitError
from .parameters import nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Kind = Literal["tcp", "unix", "sentinel", "cluster"]

#: URL scheme -> (how the server is reached, whether by TLS).
SCHEMES: dict[str, tuple[Kind, bool]] = {
    "redis": ("tcp", False),
    "rediss": ("tcp", True),
    "unix": ("unix", False),
    "redis+socket": ("unix", False),
    "socket": ("unix", False),
    "sentinel": ("sentinel", False),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
}

_DEFAULT_PORT: dict[Kind, int] = {"tcp": 6379, "sentinel": 26379, "cluster": 6379}

# A raw ";" inside a password does not part two hosts; one before a scheme or a plain host:port does.
_NEXT_HOST = re.compile(r";(?=[a-z+]+://|[\w.\[\]:-]+(?:/\d*)?(?:;|\?|$))")
_USERINFO = re.compile(r"(://[^:@/]*):.*@", re.DOTALL)
_BARE_USERINFO = re.compile(r"\A([^:@/]*):.*@", re.DOTALL)
_SECRET_OPTION = re.compile(r"([?&][^=&]*(?:password|secret|token)[^=&]*=)[^&;]*", re.IGNORECASE)

_INTEGERS = (
    "db",
    "protocol",
    "max_connections",
    "socket_read_size",
    "min_other_sentinels",
    "ssl_min_version",
)
_SECONDS = ("socket_timeout", "socket_connect_timeout", "health_check_interval")
_FLAGS = ("socket_keepalive", "ssl_check_hostname", "ssl_validate_ocsp", "ssl_validate_ocsp_stapled")
_TEXTS = (
    "client_name",
    "username",
    "password",
    "master_name",
    "sentinel_username",
    "sentinel_password",
    "ssl_keyfile",
    "ssl_certfile",
    "ssl_cert_reqs",
    "ssl_ca_certs",
    "ssl_ca_path",
    "ssl_ca_data",
    "ssl_password",
    "ssl_ciphers",
    "ssl_ocsp_expected_cert",
)


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """What a Redis URL says, parsed once.

    Attributes:
        kind: How the server is reached.
        tls: Whether the scheme asks for TLS.
        hosts: (host, port) of the server, of each sentinel, or of each node to begin with.
        path: Of the unix socket; else empty.
        db: The database number.
        username: Of the server's user, if any.
        password: Of the server's user, if any.
        query: The options after the question mark.
        masked: The URL without secrets.
    """

    kind: Kind
    tls: bool
    hosts: tuple[tuple[str, int], ...]
    path: str
    db: int
    username: str | None
    password: str | None
    query: Mapping[str, str]
    masked: str

    def __repr__(self) -> str:
        return f"RedisAddress({self.masked!r})"


def mask(url: str) -> str:
    """The URL with ``**`` in place of every password, also of URLs too odd to parse."""
    return ";".join(_mask_one(part) for part in _whole_urls(url))


def _mask_one(url: str) -> str:
    pattern = _USERINFO if "://" in url else _BARE_USERINFO
    return _SECRET_OPTION.sub(r"\1**", pattern.sub(r"\1:**@", url))


def is_redis_url(value: Any) -> bool:
    """Whether `value` is a text of one of our schemes."""
    return isinstance(value, str) and value.partition("://")[0].lower() in SCHEMES and "://" in value


def parse(parameter: str, url: str) -> RedisAddress:
    """Take a URL apart.

    Raises:
        InvalidParameter: The scheme is none of ours, or host, port, path or database make no sense. The error
            shows the URL without secrets.
    """
    masked = mask(url)
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in SCHEMES:
        allowed = ", ".join(f"{name}://" for name in SCHEMES if name != "socket")
        raise InvalidParameter(parameter, masked, f"begin it with one of {allowed}{nearest(scheme, SCHEMES)}")
    kind, tls = SCHEMES[scheme]
    hosts: list[tuple[str, int]] = []
    username = password = None
    path = ""
    query: dict[str, str] = {}
    # A list of plain servers is Celery's fail-over list: our state lives on the first of them.
    parts = [rest] if kind == "unix" else _NEXT_HOST.split(rest)
    for part in parts if kind in ("sentinel", "cluster") else parts[:1]:
        try:
            pieces = urlsplit("//" + part.rpartition("://")[2])
            port = pieces.port
            hosts.append((unquote(pieces.hostname or "localhost"), port or _DEFAULT_PORT.get(kind, 0)))
            username = username or unquote(pieces.username or "") or None
            password = password or unquote(pieces.password or "") or None
            path = path if path.strip("/") else unquote(pieces.path)
            query |= dict(parse_qsl(pieces.query))
        except ValueError:
            # Its text may quote a part of the password, which a raw # or / in it turns into a "port".
            remedy = "check host and port, and write special characters of the password as %XX"
            raise InvalidParameter(parameter, masked, remedy) from None
        if pieces.fragment:
            raise InvalidParameter(parameter, masked, "write # as %23")
    if kind == "unix":
        if not path.strip("/"):
            raise InvalidParameter(parameter, masked, "name the socket's path after unix://")
        database = query.pop("db", "") or query.pop("virtual_host", "")
        hosts = []
    else:
        database = query.pop("db", "") or path or query.pop("virtual_host", "")
        path = ""
    number = database.strip("/") or "0"
    if not (number.isascii() and number.isdigit()):
        raise InvalidParameter(parameter, masked, "end it with a database number, as in redis://host:6379/0")
    return RedisAddress(kind, tls, tuple(hosts), path, int(number), username, password, query, masked)


def url_options(query: Mapping[str, str]) -> dict[str, Any]:
    """The options of a URL's query that redis-py is to follow, in their types; the others are Celery's.

    Raises:
        InvalidParameter: A number is none, or an ``ssl_`` option is none that can be written in a URL.
    """
    options: dict[str, Any] = {}
    for name, value in query.items():
        if name in _TEXTS:
            options[name] = value
        elif name in _FLAGS:
            options[name] = value.lower() not in ("0", "f", "false", "n", "no", "")
        elif name in _INTEGERS:
            options[name] = _number(name, value, int)
        elif name in _SECONDS:
            options[name] = _number(name, value, float)
        elif name == "credential_provider":
            options[name] = _made(name, value)
        elif name.startswith("ssl_"):
            # Passed over, it would leave the connection less guarded than was asked for.
            known = [option for option in (*_TEXTS, *_FLAGS) if option.startswith("ssl_")]
            raise InvalidParameter(name, value, f"a URL knows no such option{nearest(name, known)}")
    return options


def _number(name: str, value: str, kind: type[float]) -> float:
    try:
        return kind(value)
    except ValueError:
        raise InvalidParameter(name, value, "give a number") from None


def _made(name: str, value: str) -> Any:
    """An object of the class that a dotted name stands for, as in kombu."""
    try:
        return resolve_name(value)()
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise InvalidParameter(name, value, f"give the dotted name of a class without arguments ({error})") from None


def find_redis_url(read: Callable[[str], Any], prefix: str) -> str:
    """The Redis that one of our packages uses: the first of four settings that is a Redis.

    ``<prefix>_redis_url``, else ``toolkit_redis_url``, else ``result_backend``, else ``broker_url``. Of the last two,
    the matching TLS settings and the ``master_name`` in Celery's transport options travel along in the URL's query.

    Args:
        read: Setting name -> value or ``None``; for a Celery application take `celery.configuration.redis_url_of`.
        prefix: The package's prefix, such as ``"ranch"``.

    Raises:
        InvalidParameter: One of the first two is set and is no Redis URL.
        ToolkitError: None of the four is a Redis.
    """
    for key in (f"{prefix}_redis_url", "toolkit_redis_url"):
        value = read(key)
        if value:
            url = _first_redis(value)
            if url is None:
                parse(key, value if isinstance(value, str) else repr(type(value)))
                raise InvalidParameter(key, type(value).__name__, "give a Redis URL as text")
            return url
    for key, options_key, tls_key in (
        ("result_backend", "result_backend_transport_options", "redis_backend_use_ssl"),
        ("broker_url", "broker_transport_options", "broker_use_ssl"),
    ):
        url = _first_redis(read(key))
        if url is not None:
            return _with_options(url, read(options_key), read(tls_key))
    raise ToolkitError(
        f"no Redis is configured for {prefix}: set {prefix}_redis_url, for example to redis://localhost:6379/0 "
        "(neither toolkit_redis_url, result_backend nor broker_url names a Redis)",
        prefix=prefix,
    )


def _first_redis(value: Any) -> str | None:
    urls = list(value) if isinstance(value, (list, tuple)) else [value]
    found: list[str] = [
        part for url in urls if isinstance(url, str) for part in _whole_urls(url.strip()) if is_redis_url(part)
    ]
    if not found:
        return None
    # Sentinels and cluster nodes are one service; of plain servers the first is meant.
    scheme = found[0].partition("://")[0].lower()
    if SCHEMES[scheme][0] in ("sentinel", "cluster"):
        return ";".join(url for url in found if url.lower().startswith(f"{scheme}://"))
    return found[0]


def _whole_urls(text: str) -> list[str]:
    return re.split(r";(?=[A-Za-z+]+://)", text)


def _with_options(url: str, transport: Any, tls: Any) -> str:
    """The URL with what Celery keeps beside it; what the URL itself says is not touched."""
    extra: dict[str, Any] = {}
    scheme = url.partition("://")[0].lower()
    kind = SCHEMES[scheme][0]
    if kind == "sentinel" and isinstance(transport, dict):
        extra |= {name: transport[name] for name in ("master_name", "min_other_sentinels") if transport.get(name)}
        sentinel = transport.get("sentinel_kwargs") or {}
        extra |= {f"sentinel_{name}": sentinel[name] for name in ("username", "password") if sentinel.get(name)}
    if isinstance(tls, dict) and kind != "unix":
        extra |= {name: getattr(value, "name", value) for name, value in tls.items() if value is not None}
    elif tls is True and kind != "unix":
        extra["ssl_cert_reqs"] = "required"
    missing = {name: value for name, value in extra.items() if not re.search(rf"[?&]{name}=", url)}
    if not missing:
        return url
    return f"{url}{'&' if '?' in url else '?'}{urlencode(missing, quote_via=quote)}"
