"""Structured log events: one line each, the same fields for people, for log pipelines and for hooks."""

from __future__ import annotations

import logging
import re
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    Hook = Callable[[str, dict[str, Any]], None]

_logger = logging.getLogger(__name__)

# A LogRecord refuses extra fields of these names.
_RESERVED = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "event"}
_PLAIN = re.compile(r"[\w.:/@+,\[\]*-]+\Z", re.ASCII)

_hooks: tuple[Hook, ...] = ()
_hooks_lock = Lock()


def event(logger: logging.Logger, level: int, name: str, /, **fields: Any) -> None:
    """Log one event, and tell the hooks whatever the level.

    The line reads ``name key=value ...``. The record carries ``event`` and each field as an attribute (with an
    underscore at its end where `logging` uses the name itself).

    Args:
        logger: The module's logger.
        level: Such as ``logging.INFO``.
        name: What happened, in snake case: ``lease_lost``.
        **fields: What it is about. Never arguments of tasks above DEBUG, never a password.
    """
    for hook in _hooks:
        try:
            hook(name, dict(fields))
        except Exception:  # a user's hook must not change what we do
            _logger.exception("hook %r failed on event %s", hook, name)
    if not logger.isEnabledFor(level):
        return
    line = " ".join([name, *(f"{key}={_shown(value)}" for key, value in fields.items())])
    extra = {f"{key}_" if key in _RESERVED else key: value for key, value in fields.items()}
    # The line is an argument, not the format: a percent sign in a value stays one. stacklevel: the caller is meant.
    logger.log(level, "%s", line, extra={"event": name, **extra}, stacklevel=2)


def add_hook(hook: Hook) -> Callable[[], None]:
    """Have `hook(name, fields)` called at every event in this process, in the thread where it happens.

    Returns:
        A function that takes the hook away again.
    """
    global _hooks
    with _hooks_lock:
        _hooks = (*_hooks, hook)

    def remove() -> None:
        global _hooks
        with _hooks_lock:
            _hooks = tuple(each for each in _hooks if each is not hook)

    return remove


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    # repr keeps blanks, quotes and line breaks of foreign text inside one field of one line.
    return text if _PLAIN.match(text) else repr(text)
