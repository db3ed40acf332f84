"""The mark that the router leaves on a message, in the header ``chain_router``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from celery_toolkit_core.ring import HashRing

HEADER = "chain_router"


def routed(queue: str, key: int, ring: str) -> dict[str, Any]:
    """The mark of a routed message as a header's value; see `Mark` for what is in it.

    A function of its own, because every call that is sent passes here: an object would take five times as long.
    """
    return {"queue": queue, "key": f"{key:016x}", "ring": ring}


@dataclass(frozen=True, slots=True)
class Mark:
    """What the router decided for a message.

    A retry copies the headers of its message, so the mark tells a retry, which Celery sends to the queue it came from,
    apart from a call whose caller has chosen that queue.

    Attributes:
        queue: Where the message was sent.
        key: The hash of its key, 64 bits; whoever drains a dead worker's queue finds the new owner by it. ``None``:
            the caller chose the queue.
        ring: The fingerprint of the ring that decided.
    """

    queue: str
    key: int | None = None
    ring: str = ""

    def header(self) -> dict[str, Any]:
        """The mark as a header's value: plain data for every serialiser."""
        if self.key is None:
            return {"queue": self.queue, "pinned": True}
        return routed(self.queue, self.key, self.ring)

    @classmethod
    def read(cls, headers: Any) -> Mark | None:
        """The mark among a message's headers; ``None`` when there is none, or none that makes sense."""
        value = headers.get(HEADER) if isinstance(headers, dict) else None
        if not isinstance(value, dict) or not isinstance(value.get("queue"), str):
            return None
        if value.get("pinned"):
            return cls(value["queue"])
        try:
            return cls(value["queue"], int(value["key"], 16), str(value.get("ring", "")))
        except (KeyError, TypeError, ValueError):
            return None


def owner_of_today(
    headers: Mapping[str, Any], ring: HashRing, spare: Callable[[], int]
) -> tuple[str, dict[str, Any]] | None:
    """The worker that a message belongs to now, and the headers to change; ``None`` when its caller chose the queue.

    Args:
        headers: Those of the message.
        ring: The ring of today; not an empty one.
        spare: Gives the hash for what has no key: a ticket of another package, say.
    """
    mark = Mark.read(headers)
    if mark is None:
        return ring.at(spare()), {}
    if mark.key is None:
        return None
    owner = ring.at(mark.key)
    # As though it had been sent there now: a retry of it follows the ring, and it counts as no foreign view.
    return owner, {HEADER: routed(owner, mark.key, ring.fingerprint)}
