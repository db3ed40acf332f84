"""What RabbitMQ tells through its management API and through nothing else."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urlsplit
from urllib.request import Request, urlopen

from .dead_letters import is_rabbitmq, settings_of
from .errors import NoManagement

if TYPE_CHECKING:
    from celery import Celery

#: Seconds for the whole answer.
_TIMEOUT = 3.0

#: Where the API listens unless ``showcase_management_url`` says otherwise.
_PORT = 15672


def unacknowledged(app: Celery) -> dict[str, int]:
    """How many messages of each queue the workers have fetched and not yet acknowledged.

    Raises:
        NoManagement: The API does not answer, or refuses the user.
    """
    found = _get(app, "queues/{vhost}?disable_stats=true&enable_queue_totals=true")
    return {queue["name"]: int(queue.get("messages_unacknowledged", 0)) for queue in found}


def _get(app: Celery, path: str) -> Any:
    if not is_rabbitmq(app):
        raise NoManagement("the broker is not RabbitMQ", url="")
    broker = urlsplit(str(app.conf.broker_url).partition(";")[0])
    url = settings_of(app).management_url
    given = urlsplit(url or f"http://{broker.hostname or 'localhost'}:{_PORT}")
    user, password = given.username or broker.username or "guest", given.password or broker.password or "guest"
    vhost = unquote(broker.path[1:]) or "/"
    bare = f"{given.scheme}://{given.hostname}:{given.port or _PORT}"
    request = Request(f"{bare}/api/{path.format(vhost=quote(vhost, safe=''))}")  # noqa: S310  # checked by the setting
    secret = b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()
    request.add_header("Authorization", f"Basic {secret}")
    try:
        with urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310  # likewise
            return json.load(answer)
    except HTTPError as error:
        why = f"refuses the user ({error.code})" if error.code in (401, 403) else f"answers {error.code}"
    except (URLError, OSError, ValueError) as error:
        why = f"does not answer ({getattr(error, 'reason', error)})"
    raise NoManagement(
        f"RabbitMQ's management API at {bare} {why}; enable rabbitmq_management, or set showcase_management_url",
        url=bare,
    )
