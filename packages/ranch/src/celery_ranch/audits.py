"""The backlog as a whole: where every task is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery_toolkit_core.errors import RedisError

from .application import ranch_of

if TYPE_CHECKING:
    from celery import Celery

    from .application import Ranch

#: Where a task that was submitted can be; the sum is the number of all that ever were.
PLACES = (
    "scheduled",
    "waiting",
    "in_flight",
    "done",
    "dead",
    "expired",
    "revoked",
    "abandoned",
    "purged",
    "quarantined",
    "handed_back",
)


def audit(app: Celery) -> dict[str, int]:
    """Where every task that was ever submitted is, at one moment.

    Returns:
        ``submitted``; the `PLACES`, whose sum it is; ``missing``, the difference, 0 unless something was lost;
        ``clients`` with work; ``entries`` and ``messages`` stored; ``weight_failures`` of weight functions.
    """
    seen = ranch_of(app).backlog.audit()
    ordered = {"submitted": seen["submitted"], **{name: seen[name] for name in PLACES}}
    ordered["missing"] = seen["submitted"] - sum(seen[name] for name in PLACES)
    return {**ordered, **seen}


def status(ranch: Ranch) -> dict[str, Any]:
    """The backlog as a whole, in celery-ranch's words; a Redis that is away is told, not raised."""
    try:
        seen = ranch.backlog.audit()
    except RedisError as error:
        return {
            "initialized": False,
            "storage_type": "redis",
            "backlog_size": 0,
            "unique_lru_keys": 0,
            "health": f"error: {error}",
        }
    return {
        "initialized": True,
        "storage_type": "redis",
        "backlog_size": seen["waiting"] + seen["scheduled"],
        "unique_lru_keys": seen["clients"],
        "health": "ok",
    }
