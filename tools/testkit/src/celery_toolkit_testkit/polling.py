"""Waiting for something to become true, with a deadline instead of a hopeful sleep."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def eventually(predicate: Callable[[], T], timeout: float = 30.0, message: str = "", *, interval: float = 0.02) -> T:
    """Call `predicate` until it returns something truthy, and return that.

    Args:
        predicate: What is waited for. An ``AssertionError`` out of it counts as "not yet".
        timeout: Seconds until it fails; generous, because a test machine may be very slow.
        message: What was waited for, in words.
        interval: Seconds between two calls.

    Raises:
        AssertionError: The time is over; it names the last value or the last assertion.
    """
    end = time.monotonic() + timeout
    while True:
        try:
            value = predicate()
            seen = f"last value: {value!r}"
        except AssertionError as error:
            value, seen = None, f"last assertion: {error}"
        if value:
            return value
        if time.monotonic() > end:
            what = message or getattr(predicate, "__qualname__", repr(predicate))
            raise AssertionError(f"not within {timeout:g} s: {what} ({seen})")
        time.sleep(interval)
