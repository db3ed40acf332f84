"""Hot keys: which keys come most often, counted in a fixed room."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(slots=True)
class HotKey:
    """One key with its count.

    Attributes:
        label: The key in words.
        count: How often it came; never too low.
        excess: By how much the count may be too high at most.
    """

    label: str
    count: float
    excess: float


class HotKeys:
    """The keys that come most often, by the space-saving sketch.

    Metwally, Agrawal, El Abbadi, "Efficient Computation of Frequent and Top-k Elements in Data Streams" (2005): a key
    that has no place takes the place, and the count, of the rarest. Whatever came more often than one in `capacity` is
    there for certain. A key that has its place costs O(1), any other O(capacity).

    Args:
        capacity: Keys that have a place.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._places: dict[int, HotKey] = {}

    def add(self, key: int, label: Callable[[], str]) -> None:
        """Count a key.

        Args:
            key: Its hash.
            label: Its name in words, asked for when it takes a place.
        """
        place = self._places.get(key)
        if place is not None:
            place.count += 1
        elif len(self._places) < self._capacity:
            self._places[key] = HotKey(label(), 1, 0)
        else:
            rarest = min(self._places, key=lambda each: self._places[each].count)
            least = self._places.pop(rarest).count
            self._places[key] = HotKey(label(), least + 1, least)

    def fade(self, factor: float) -> None:
        """Multiply all counts, so that the past weighs less; what has all but faded gives up its place."""
        for key, place in list(self._places.items()):
            place.count *= factor
            place.excess *= factor
            if place.count < 0.01:
                del self._places[key]

    def top(self, amount: int) -> list[tuple[int, HotKey]]:
        """(hash, key) of the most frequent, in that order."""
        return sorted(self._places.items(), key=lambda item: -item[1].count)[:amount]
