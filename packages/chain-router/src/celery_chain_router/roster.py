"""The roster: who is on the ring, of those who were registered by hand and those who joined by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from .membership import View


def on_the_ring(registered: Mapping[str, float], view: View, unregistered: Collection[str] = ()) -> dict[str, float]:
    """Worker -> weight.

    A worker that was registered by hand is on the ring until one of that name joins; from then on its lease decides.
    When nobody is left, everybody known stays: a call then waits in its worker's queue for somebody to come back,
    rather than in a default queue that maybe nobody consumes.

    Args:
        registered: Workers registered by hand in this process, with their weights.
        view: The shared membership.
        unregistered: Workers that this process has taken off by hand.
    """
    known = dict(registered) | {member.name: member.weight for member in view.members.values()}
    for name in unregistered:
        known.pop(name, None)
    away = {member.name for member in view.members.values() if member.state != "up"}
    return {name: weight for name, weight in known.items() if name not in away} or known
