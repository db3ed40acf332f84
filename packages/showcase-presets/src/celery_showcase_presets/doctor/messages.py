"""Checks of what messages are made of and of what happens to results."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from celery_toolkit_core.settings import unknown_settings

from ..settings import PREFIX, ShowcaseSettings
from .case import check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .case import Case

_RUNS_CODE = {"pickle", "application/x-python-serialize", "yaml", "application/x-yaml"}


@check("serializers")
def only_json(case: Case) -> Iterator[str]:
    """Pickle runs whatever a message says."""
    for name in ("accept_content", "result_accept_content"):
        risky = sorted(_RUNS_CODE.intersection(case.conf.get(name) or ()))
        if risky:
            yield f"{name} has {', '.join(risky)}: whoever can write to the broker runs code; accept json only"
    for name in ("task_serializer", "result_serializer", "event_serializer"):
        if case.conf.get(name) in _RUNS_CODE:
            yield f"{name} is {case.conf.get(name)}; take json"


@check("utc")
def utc(case: Case) -> Iterator[str]:
    """Countdown and eta must mean the same on every machine."""
    if not case.conf.enable_utc:
        yield "enable_utc is off: an eta means another moment on a machine in another time zone; switch it on"


@check("timezone", "advice")
def timezone(case: Case) -> Iterator[str]:
    """A local hour comes twice in autumn and not at all in spring."""
    if case.conf.enable_utc and str(case.conf.timezone or "UTC") not in ("UTC", "Etc/UTC"):
        yield f"timezone is {case.conf.timezone}: crontab hours are skipped or repeated when its clocks change"


@check("results-expire")
def results_expire(case: Case) -> Iterator[str]:
    """Results that stay for ever fill the server."""
    if case.conf.result_backend and not case.conf.result_expires:
        yield "result_expires is not set: results stay for ever and fill the backend; give seconds"


@check("separate-databases")
def separate_databases(case: Case) -> Iterator[str]:
    """Who empties one must not empty the other."""
    broker, backend = str(case.conf.broker_url or ""), str(case.conf.result_backend or "")
    if case.is_redis and backend.startswith(("redis", "rediss")) and _place(broker) == _place(backend):
        yield "broker and results share one database: emptying the one loses the other; give results the next one"


@check("eager")
def not_eager(case: Case) -> Iterator[str]:
    """Eager tasks run in the caller."""
    if case.conf.task_always_eager:
        yield "task_always_eager is on: tasks run in the caller and never reach a worker; it is for tests only"


@check("showcase-settings")
def known_settings(case: Case) -> Iterator[str]:
    """Celery takes a misspelt setting in silence."""
    for name, near in unknown_settings(ShowcaseSettings, PREFIX, map(str, case.conf)):
        yield f"{name} means nothing" + (f"; did you mean {near}?" if near else "")


@check("delayed-delivery")
def delayed_delivery(case: Case) -> Iterator[str]:
    """Pauses on quorum queues rest on topic exchanges."""
    for name, queue in sorted(case.app.amqp.queues.items()) if case.is_rabbitmq else ():
        quorum = (queue.queue_arguments or {}).get("x-queue-type") == "quorum"
        if quorum and queue.exchange.type == "direct":
            yield f"queue {name} is a quorum queue behind a direct exchange: retries with a pause fail; make it a topic"


@check("replicated-queues", "advice")
def replicated_queues(case: Case) -> Iterator[str]:
    """A classic queue is on one node."""
    for name, queue in sorted(case.app.amqp.queues.items()) if case.is_rabbitmq else ():
        if (queue.queue_arguments or {}).get("x-queue-type", "classic") == "classic":
            yield f"queue {name} is a classic queue: it is away with its node; make it a quorum queue"


def _place(url: str) -> tuple[str, int, str]:
    parts = urlsplit(url)
    return parts.hostname or "localhost", parts.port or 6379, parts.path.strip("/") or "0"
