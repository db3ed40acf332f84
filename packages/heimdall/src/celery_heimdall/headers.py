"""The message headers of heimdall."""

from __future__ import annotations

from typing import Any

#: The key of the lock, so that the worker need not work it out again; it stays with the task through retries.
KEY = "heimdall_key"
#: The task whose result this one shares when it can.
HOLDER = "heimdall_holder"

# The others mean one delivery in one worker.
#: What this delivery holds its lock and places by.
TOKEN = "heimdall_token"  # noqa: S105  # a header's name
#: When it asked to enter, in seconds of the machine's monotonic clock, which all its processes share.
ENTERED = "heimdall_entered"
#: The fence number of the lock.
FENCE = "heimdall_fence"
#: The ended task whose result is this task's.
JOIN = "heimdall_join"
#: Why the body may not run: a function of the user failed.
ERROR = "heimdall_error"
#: The limit that ends the task: strategy, name, seconds to wait.
REFUSED = "heimdall_refused"
#: The token of a message that was woken.
WAKE = "heimdall_wake"
#: The exchange and routing key with which a woken message was sent at first.
ROUTE = "heimdall_route"

DELIVERY_ONLY = (HOLDER, TOKEN, ENTERED, FENCE, JOIN, ERROR, REFUSED, WAKE, ROUTE)


def without_delivery(headers: dict[str, Any] | None) -> dict[str, Any]:
    """A copy for a new message: ``Task.retry`` copies every custom header, those of one delivery too."""
    return {name: value for name, value in (headers or {}).items() if name not in DELIVERY_ONLY}
