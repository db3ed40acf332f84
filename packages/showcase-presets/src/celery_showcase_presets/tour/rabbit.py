"""A virtual host of its own on somebody's RabbitMQ, for the length of a tour."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urlsplit
from urllib.request import Request, urlopen

from celery_toolkit_core.errors import InvalidParameter

from ..errors import NoManagement

_PORT = 15672
_TIMEOUT = 10.0  # seconds


@dataclass(frozen=True, slots=True)
class Management:
    """RabbitMQ's management API.

    Args:
        url: Where it is, without a user.
        user: Whose rights are used; it needs the tag ``administrator`` to make a virtual host.
        password: Of that user.
    """

    url: str
    user: str
    password: str = field(repr=False)

    def call(self, method: str, path: str, body: object = None) -> Any:
        """One call; what it answers, or None.

        Raises:
            NoManagement: Nobody answers, or the user may not.
        """
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"{self.url}/api/{path}", data=data, method=method)  # noqa: S310  # the scheme is checked
        request.add_header("Authorization", f"Basic {b64encode(f'{self.user}:{self.password}'.encode()).decode()}")
        request.add_header("Content-Type", "application/json")
        try:
            with urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310  # likewise
                text = answer.read()
        except HTTPError as error:
            why = f"refuses user {self.user} ({error.code})" if error.code in (401, 403) else f"answers {error.code}"
        except (URLError, OSError) as error:
            why = f"does not answer ({getattr(error, 'reason', error)})"
        else:
            return json.loads(text) if text else None
        raise NoManagement(
            f"RabbitMQ's management API at {self.url} {why}; enable rabbitmq_management, or give --management",
            url=self.url,
        ) from None

    def page(self) -> str:
        """The page for people, as HTML."""
        with urlopen(f"{self.url}/", timeout=_TIMEOUT) as answer:  # noqa: S310  # likewise
            return str(answer.read().decode())


@contextmanager
def virtual_host(broker: str, management: str | None, name: str) -> Iterator[tuple[str, Management]]:
    """Make a virtual host that goes away, with all that is in it, at the end of the block.

    Args:
        broker: ``amqp://user:password@host:port/`` of the server; the virtual host in it is not touched.
        management: Where the API is; by default port 15672 of the same host.
        name: The virtual host's name.

    Yields:
        The broker's URL with the new virtual host, and the API.

    Raises:
        InvalidParameter: One of the URLs is none.
        NoManagement: The API does not answer, or the user may not.
    """
    parts = urlsplit(broker)
    if parts.scheme not in ("amqp", "amqps", "pyamqp") or not parts.hostname:
        raise InvalidParameter("rabbitmq", parts.scheme, "give amqp://user:password@host:port/")
    url = (management or f"http://{parts.hostname}:{_PORT}").rstrip("/")
    if urlsplit(url).scheme not in ("http", "https") or urlsplit(url).username:
        raise InvalidParameter("management", urlsplit(url).scheme, "give http://host:port, without a user")
    api = Management(url, unquote(parts.username or "guest"), unquote(parts.password or "guest"))
    host = quote(name, safe="")
    api.call("PUT", f"vhosts/{host}", {})
    try:
        api.call(
            "PUT", f"permissions/{host}/{quote(api.user, safe='')}", dict.fromkeys(("configure", "write", "read"), ".*")
        )
        yield parts._replace(path=f"/{host}", query="", fragment="").geturl(), api
    finally:
        api.call("DELETE", f"vhosts/{host}")
