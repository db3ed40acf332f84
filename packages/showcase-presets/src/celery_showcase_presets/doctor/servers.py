"""Checks of the servers: whether they are there, and whether they keep what they are given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celery_toolkit_core.connection import DRIVER_ERRORS
from celery_toolkit_core.errors import ToolkitError

from ..dead_letters import dead_letters_of, settings_of
from .case import check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .case import Case


@check("broker", looks=True)
def broker(case: Case) -> Iterator[str]:
    """Nothing can be sent."""
    if case.broker_error:
        yield f"the broker cannot be reached: {case.broker_error}"


@check("result-backend", looks=True)
def result_backend(case: Case) -> Iterator[str]:
    """No result can be read or written."""
    _, error = case.redis_at(case.conf.result_backend, "result_backend_transport_options")
    if error:
        yield f"the result backend cannot be reached: {error}"


@check("result-retries")
def result_retries(case: Case) -> Iterator[str]:
    """Celery reads before it writes a result, and fails the task when that one read fails."""
    for where, on in case.setting_everywhere("result_backend_always_retry"):
        if not on and str(case.conf.result_backend or "").startswith(("redis", "sentinel")):
            yield (
                f"result_backend_always_retry is off{where}: one cut connection to the results fails a task; set it, "
                "with a bounded result_backend_max_retries"
            )


@check("eviction", looks=True)
def eviction(case: Case) -> Iterator[str]:
    """A server that may throw keys away throws tasks and locks away."""
    seen = set()
    for what, url, option in (
        ("broker", case.conf.broker_url, "broker_transport_options"),
        ("result backend", case.conf.result_backend, "result_backend_transport_options"),
    ):
        client, error = case.redis_at(url, option)
        if client is None or error:
            continue
        try:
            information = client.info()
        except DRIVER_ERRORS:
            continue  # an ACL that forbids to look; managed servers say so in their console
        policy, server = information.get("maxmemory_policy", "noeviction"), information.get("run_id")
        if policy != "noeviction" and server not in seen:
            seen.add(server)
            yield (
                f"the Redis of the {what} has maxmemory-policy {policy}: when it is full it drops tasks, locks or "
                "results; set noeviction"
            )


@check("dead-letters", looks=True)
def dead_letters(case: Case) -> Iterator[str]:
    """A task that fails for good must leave more than a line in a log."""
    try:
        if not settings_of(case.app).dead_letters:
            yield "showcase_dead_letters is off: a task that fails for good is gone"
            return
        dead_letters_of(case.app)
    except (ToolkitError, *DRIVER_ERRORS) as error:
        yield f"there is no place for dead letters: {error}"
