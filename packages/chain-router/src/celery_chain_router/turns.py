"""Turns: who of one key may go next, and places: who of all may have one in the pool. Neither locks; the lane does."""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from .entry import Entry


class Turns:
    """One line for each key; whoever is first in it has the turn until it leaves."""

    def __init__(self) -> None:
        self._lines: dict[tuple[int, int], deque[Entry]] = {}

    def join(self, entry: Entry) -> bool:
        """Take a place at the end of the line; whether it is the first. What has no key has its turn at once."""
        if entry.key is None:
            return True
        line = self._lines.setdefault(entry.key, deque())
        line.append(entry)
        return line[0] is entry

    def leave(self, entry: Entry) -> Entry | None:
        """Leave the line, wherever in it; who has the turn by that."""
        line = None if entry.key is None else self._lines.get(entry.key)
        if entry.key is None or line is None or entry not in line:
            return None
        had_turn = line[0] is entry
        line.remove(entry)
        if line:
            return line[0] if had_turn else None
        del self._lines[entry.key]
        return None

    def held_back(self) -> Counter[int]:
        """Partition -> how many of its messages wait for somebody of their key."""
        waiting: Counter[int] = Counter()
        for (partition, _), line in self._lines.items():
            waiting[partition] += len(line) - 1
        return waiting


class Places:
    """The pool's places: as many at a time as it can run, in the order of asking."""

    def __init__(self) -> None:
        self._waiting: deque[Entry] = deque()
        self._taken: set[Entry] = set()

    def ask(self, entry: Entry, *, in_front: bool = False) -> None:
        """Wait for a place."""
        if in_front:
            self._waiting.appendleft(entry)
        else:
            self._waiting.append(entry)

    def next(self, most: int, may_go: Callable[[Entry], bool]) -> Entry | None:
        """The next one that may go, which has a place from now on; ``None`` when `most` places are taken."""
        if len(self._taken) >= most:
            return None
        for entry in self._waiting:
            if may_go(entry):
                self._waiting.remove(entry)
                self._taken.add(entry)
                return entry
        return None

    def leave(self, entry: Entry) -> None:
        """Give the place back, or wait for none any more."""
        self._taken.discard(entry)
        if entry in self._waiting:
            self._waiting.remove(entry)
