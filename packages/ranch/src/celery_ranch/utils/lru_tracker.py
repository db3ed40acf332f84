"""What a weight function is told about a client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class LRUKeyMetadata:
    """A client as a weight function sees it.

    Attributes:
        timestamp: When the client was served before this turn, in seconds since the epoch by Redis' clock; 0.0 for
            never.
        weight: Its static weight; lower is served more often.
        tags: Its tags, or None.
        custom_data: Its custom data, or None.
    """

    timestamp: float
    weight: float = 1.0
    tags: dict[str, Any] | None = None
    custom_data: dict[str, Any] | None = None
