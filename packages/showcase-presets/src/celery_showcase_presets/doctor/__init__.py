"""What is dangerous in the configuration of an application, its tasks, its servers and its workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import messages, runs, servers, tasks  # noqa: F401  # each registers its checks
from .case import CHECKS, Case, Finding

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["CHECKS", "Finding", "examine"]


def examine(app: Celery, *, timeout: float = 1.0, look: bool = True) -> list[Finding]:
    """Every danger and every advice, dangers first.

    Args:
        app: The application, with all of its modules imported.
        timeout: Seconds in which workers may answer.
        look: Whether to ask servers and workers; else the configuration alone is judged.
    """
    case = Case(app, timeout, look=look)
    found = [
        Finding(name, check.level, sentence)
        for name, check in CHECKS.items()
        if look or not check.looks
        for sentence in check.examine(case)
    ]
    return sorted(found, key=lambda finding: finding.level != "danger")
