"""Checks of what users pass in: each returns the value in its house form or raises `InvalidParameter`."""

from __future__ import annotations

import math
from datetime import timedelta
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from .errors import InvalidParameter

if TYPE_CHECKING:
    from collections.abc import Iterable

_LONGEST_MS = 100 * 365 * 24 * 3600 * 1000


def seconds(parameter: str, value: Any, *, zero: bool = False) -> float:
    """A time span in seconds, from a number or a ``timedelta``; above 0 unless `zero` is allowed."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    return positive(parameter, value, zero=zero, remedy="give a finite number of seconds above 0, or a timedelta")


def milliseconds(parameter: str, value: Any, *, zero: bool = False) -> int:
    """A time span as whole milliseconds for a script, from seconds or a ``timedelta``; 1 ms to 100 years, or `zero`."""
    span = round(seconds(parameter, value, zero=zero) * 1000)
    if not (1 <= span <= _LONGEST_MS or (zero and value == 0)):
        raise InvalidParameter(parameter, value, "give at least 0.001 and at most 3153600000 seconds")
    return span


def positive(parameter: str, value: Any, *, zero: bool = False, remedy: str = "give a finite number above 0") -> float:
    """A finite number above 0 (or from 0 on, with `zero`); ``bool`` and ``str`` are refused."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidParameter(parameter, value, remedy)
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise InvalidParameter(parameter, value, remedy)
    return float(value)


def number(parameter: str, value: Any) -> float:
    """Any finite number; ``bool`` and ``str`` are refused."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InvalidParameter(parameter, value, "give a finite number")
    return float(value)


def count(parameter: str, value: Any, *, least: int = 1, most: int = 2**53) -> int:
    """A whole number between `least` and `most`; ``bool`` and fractions are refused."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidParameter(parameter, value, f"give a whole number from {least} to {most}")
    return value


def flag(parameter: str, value: Any) -> bool:
    """``True`` or ``False``, nothing that merely looks like it."""
    if not isinstance(value, bool):
        raise InvalidParameter(parameter, value, "give True or False")
    return value


def text(parameter: str, value: Any, *, most: int = 512) -> str:
    """Encodable, non-empty text of at most `most` characters."""
    if not isinstance(value, str) or not value or len(value) > most:
        raise InvalidParameter(parameter, value, f"give a text of 1 to {most} characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidParameter(parameter, value, "give a text without lone surrogates") from None
    return value


def one_of(parameter: str, value: Any, allowed: Iterable[str]) -> str:
    """One of the `allowed` words; a misspelt one is answered with the nearest."""
    choices = sorted(allowed)
    if isinstance(value, str) and value in choices:
        return value
    raise InvalidParameter(parameter, value, f"give one of {', '.join(choices)}{nearest(value, choices)}")


def nearest(name: Any, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)``, or nothing when no known name is near."""
    found = get_close_matches(name, list(known), n=1) if isinstance(name, str) else []
    return f" (did you mean {found[0]!r}?)" if found else ""
