"""The errors of Celery Toolkit: one root, data as attributes, every one of them pickles."""

from __future__ import annotations

import pickle
import re
from typing import Any

_USERINFO = re.compile(r"(://[^:@/\s]*):[^\s]*@")


class ToolkitError(Exception):
    """The root of all errors that Celery Toolkit raises on purpose.

    Args:
        message: One sentence that names the matter and the remedy.
        **data: What the error is about; each becomes an attribute of that name.
    """

    def __init__(self, message: str, **data: Any) -> None:
        super().__init__(message)
        self.__dict__.update(data)

    def __reduce__(self) -> tuple[Any, ...]:
        data = {name: value if _pickles(value) else _short(value) for name, value in self.__dict__.items()}
        return _rebuild, (type(self), str(self.args[0]), data)


def _rebuild(kind: type[ToolkitError], message: str, data: dict[str, Any]) -> ToolkitError:
    # Not through __init__: a subclass may take its data in another form than (message, **data).
    error = kind.__new__(kind, message)
    error.args = (message,)
    error.__dict__.update(data)
    return error


class InvalidParameter(ToolkitError, ValueError):
    """A parameter has a value that cannot be meant; raised before anything is written.

    Attributes:
        parameter: The name as the user wrote it.
        value: The refused value.
        remedy: What to write instead.
    """

    parameter: str
    value: Any
    remedy: str

    def __init__(self, parameter: str, value: Any, remedy: str) -> None:
        super().__init__(
            f"{parameter}={_short(value)} is not possible: {remedy}", parameter=parameter, value=value, remedy=remedy
        )


class RedisError(ToolkitError):
    """Our Redis did not do what was asked.

    Attributes:
        server: The server without its password.
    """

    server: str


class RedisUnavailable(RedisError, ConnectionError):
    """Our Redis cannot be reached, or did not answer in time."""


class RedisFull(RedisError):
    """Our Redis is at its ``maxmemory`` and takes no new entries."""


class Quarantined(ToolkitError):
    """Bytes in the store that this version cannot read; they were put aside, untouched.

    Attributes:
        reason: What did not fit.
    """

    reason: str


def _pickles(value: Any) -> bool:
    # A refused value may be anything: a lock, a generator, a class of the user's __main__.
    try:
        pickle.dumps(value)
    except Exception:  # noqa: BLE001  # whatever its own __reduce__ raises
        return False
    return True


def _short(value: Any, limit: int = 80) -> str:
    # A URL in the wrong place, or in a list, must not show its password for that.
    text = _USERINFO.sub(r"\1:**@", repr(value))
    return text if len(text) <= limit else text[: limit - 3] + "..."
