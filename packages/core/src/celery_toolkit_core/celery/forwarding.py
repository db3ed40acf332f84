"""Forwarding: where a message goes today that was kept for a queue whose worker may be gone.

Who gives queues to workers registers a rule; who keeps messages and sends them later asks it. Neither knows the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from celery import Celery

    #: (queue, headers) -> (the queue of today, headers to change), or ``None`` when the rule has no opinion.
    Rule = Callable[[str, Mapping[str, Any]], tuple[str, dict[str, Any]] | None]

_rules: WeakKeyDictionary[Any, Rule] = WeakKeyDictionary()


def forward(app: Celery, rule: Rule) -> None:
    """Ask `rule` from now on about every message of an application that was kept; it must neither wait nor raise."""
    _rules[_real(app)] = rule


def forwarded(app: Celery, queue: str, headers: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Where a message goes that was kept for `queue`, and the headers to change; the same queue unless a rule says so.

    Args:
        app: The application.
        queue: The queue's name.
        headers: Those of the message.
    """
    rule = _rules.get(_real(app))
    return (rule and rule(queue, headers)) or (queue, {})


def _real(app: Any) -> Any:
    return getattr(app, "_get_current_object", lambda: app)()
