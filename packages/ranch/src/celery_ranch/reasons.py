"""Why a task is not running, in words."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from .application import ranch_of
from .places import find, find_away

if TYPE_CHECKING:
    from celery import Celery

    from .places import Place

_CONTROLS = {
    "limited": "a rate or concurrency limit holds it back",
    "locked": "another task has its key",
}


def explain(app: Celery, task_id: str) -> list[dict[str, Any]]:
    """All that is known of where a task is; a retry that waits beside its parent has an entry of its own.

    Returns:
        One mapping for each of its entries: entry, task_id, name, lru_key, attempts, reason, why. ``reason`` is one of
        ``turn``, ``paused``, ``capped``, ``limited``, ``locked``, ``taken``, ``in flight``, ``no consumer``,
        ``scheduled``, ``dead``, ``quarantined``, ``ended``, ``unknown``.
    """
    backlog = ranch_of(app).backlog
    found = [
        {**row_of(place), "reason": _REASONS.get(place.state, place.state), "why": _why(place)}
        for place in find(backlog, task_id)
    ]
    if found:
        return found
    about: dict[str, Any] = {"entry": None, "task_id": task_id, "name": None, "lru_key": None, "attempts": None}
    away = find_away(backlog, task_id)
    if away is not None:
        held = _CONTROLS.get(away.why, "another control has taken it")
        why = f"{held}, since {moment(away.since)}; it has given its turn back and gets a new one when it is woken"
        return [{**about, "lru_key": away.lru_key, "reason": away.why or "taken", "why": why}]
    state = _state(app, task_id)
    if state is not None:
        return [{**about, "reason": "ended", "why": f"it has ended: {state}"}]
    why = "unknown to ranch: it has ended without a result, another control holds it, or it was never sent for a client"
    return [{**about, "reason": "unknown", "why": why}]


def row_of(place: Place) -> dict[str, Any]:
    """A place as a row of a table."""
    return {
        "entry": place.entry,
        "task_id": place.task_id,
        "name": place.name,
        "lru_key": place.lru_key,
        "attempts": place.attempts,
    }


def moment(seconds: float) -> str:
    """A time by Redis' clock, for people."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


_REASONS = {"waiting": "turn", "unserved": "no consumer", "gone": "ended"}


def _why(place: Place) -> str:
    before = f"{place.a} tasks of its client are before it"
    if place.state == "waiting":
        return f"its turn has not come: {place.a} tasks of its client and {place.b} clients are before it"
    if place.state == "unserved":
        seen = f"the last one was seen at {_moment(place.b)}" if place.b else "none was ever seen"
        return f"no worker consumes its queue, {seen}; {before}"
    if place.state == "paused":
        return f"the client is paused; {before}"
    if place.state == "capped":
        return f"the client has as much in flight as its cap allows; {before}"
    if place.state == "scheduled":
        return f"it is due at {_moment(place.a)}"
    if place.state == "in flight" and place.b:
        ended = f"its lease ended at {_moment(place.a)}"
        return (
            f"the worker that had it, attempt {place.attempts + 1}, died: {ended}; any worker that lives puts it back"
        )
    if place.state == "in flight":
        return f"a worker has it, attempt {place.attempts + 1}; the lease runs until {_moment(place.a)}"
    if place.state == "dead":
        return f"it is dead since {_moment(place.a)} ({place.b}); see 'celery ranch dead'"
    if place.state == "quarantined":
        return f"what is stored of it cannot be read, since {_moment(place.a)}; see 'celery ranch dead'"
    return "it has just ended"


def _state(app: Celery, task_id: str) -> str | None:
    result: Any = app.AsyncResult(task_id)
    try:
        return str(result.state) if result.ready() else None
    except Exception:  # noqa: BLE001  # without a result backend, or one that is away: then nobody knows
        return None


def _moment(milliseconds: str) -> str:
    return moment(float(milliseconds) / 1000)
