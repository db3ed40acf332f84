"""Fair scheduling of Celery tasks between clients: late, by weight and cost, and without loss.

The README beside this package is the manual.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from .audits import audit
from .audits import status as _status
from .clients import Clients
from .errors import BacklogFull, ClientDraining, DeadTask, PayloadTooLarge, RanchError, TooFewReplicas
from .task import RanchTask, lru_task

if TYPE_CHECKING:
    from celery import Celery

__all__ = [
    "BacklogFull",
    "ClientDraining",
    "Clients",
    "DeadTask",
    "PayloadTooLarge",
    "RanchError",
    "RanchTask",
    "TooFewReplicas",
    "audit",
    "get_status",
    "lru_task",
]

__version__ = version("celery-toolkit-ranch")


def get_status(app: Celery | None = None) -> dict[str, Any]:
    """The backlog of an application (by default the current one) as a whole.

    Returns:
        initialized, storage_type, backlog_size, unique_lru_keys, health.
    """
    from celery._state import get_current_app

    from .application import ranch_of

    return _status(ranch_of(app or get_current_app()))
