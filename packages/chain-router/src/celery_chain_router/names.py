"""What may be a worker's name, which also is the name of its queue, and what its weight."""

from __future__ import annotations

from typing import Any

from celery_toolkit_core.errors import InvalidParameter
from celery_toolkit_core.parameters import positive
from celery_toolkit_core.ring import MOST_WEIGHT

#: Characters; a queue name on RabbitMQ may have 255 bytes, and companions such as ``<name>.wake`` need room.
LONGEST = 200


def worker_name(value: Any) -> str:
    """The name itself when it can be one.

    Raises:
        InvalidParameter: Not a text, empty, longer than 200 characters, or with blanks at an end, control characters,
            commas or braces: those have a meaning in ``-Q`` and in Redis keys.
    """
    if (
        not isinstance(value, str)
        or not 1 <= len(value) <= LONGEST
        or value != value.strip()
        or not value.isprintable()
        or set(value) & set("{},")
    ):
        raise InvalidParameter(
            "worker name", value, f"give 1 to {LONGEST} printable characters without commas, braces or blanks around"
        )
    return value


def weight(value: Any) -> float:
    """The weight itself: a number above 0, up to 100.

    Raises:
        InvalidParameter: Anything else: an unbounded weight would be a way to fill the memory of every producer.
    """
    remedy = f"give a number above 0, up to {MOST_WEIGHT:g}"
    if positive("weight", value, remedy=remedy) > MOST_WEIGHT:
        raise InvalidParameter("weight", value, remedy)
    return float(value)
