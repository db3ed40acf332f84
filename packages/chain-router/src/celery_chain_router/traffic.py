"""Traffic: what a worker has received lately, and what it tells of that with its signs of life."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

from .hot_keys import HotKeys
from .mark import Mark

if TYPE_CHECKING:
    from collections.abc import Callable

    from .router import ChainRouter

#: Seconds after which a message counts half.
HALF_LIFE = 60.0
#: Counts that have settled at so many per minute are this many times as large.
_COUNT_PER_MINUTE = HALF_LIFE / 60 / math.log(2)
#: Places of the sketch for each key that is reported.
_PLACES = 8


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a worker says of its last minutes; all figures are messages per minute.

    Attributes:
        received: All messages that the router has sent.
        other_view: Those of them whose sender had another table than the worker.
        top: The hottest keys: hash, name in words, rate, and by how much the rate may be too high.
    """

    received: float = 0.0
    other_view: float = 0.0
    top: tuple[tuple[str, str, float, float], ...] = ()

    def record(self) -> str:
        """As it is stored."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def read(cls, data: bytes) -> Traffic:
        """Out of what is stored; what makes no sense says nothing."""
        try:
            said = json.loads(data)
            top = tuple((str(key), str(label), float(rate), float(excess)) for key, label, rate, excess in said["top"])
            return cls(float(said["received"]), float(said["other_view"]), top)
        except (ValueError, TypeError, KeyError):
            return cls()


class TrafficCounter:
    """Counts the messages of one worker; `count` and `report` may run in different threads.

    Args:
        router: The router whose messages they are.
        most: Keys that a report names; 0 counts none.
        clock: Seconds that only rise.
    """

    def __init__(self, router: ChainRouter, most: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.mismatches = 0
        self._router = router
        self._most = most
        self._clock = clock
        self._lock = Lock()
        self._since = clock()
        self._received = self._other_view = 0.0
        self._hot = HotKeys(_PLACES * most)

    def count(self, request: Any, **_: Any) -> None:
        """Count one received message; a receiver of Celery's signal ``task_received``."""
        mark = Mark.read(request.request_dict)
        if mark is None:
            return
        with self._lock:
            self._received += 1
            # For about a second after a change this is as it must be; for longer, a sender sees other members.
            if mark.ring and mark.ring != self._router.fingerprint:
                self._other_view += 1
                self.mismatches += 1
            if self._most and mark.key is not None:
                self._hot.add(mark.key, lambda: self._label(mark.key or 0, request))

    def report(self) -> Traffic:
        """The rates of now."""
        with self._lock:
            now = self._clock()
            factor = 0.5 ** ((now - self._since) / HALF_LIFE)
            self._since = now
            self._received *= factor
            self._other_view *= factor
            self._hot.fade(factor)
            top = tuple(
                (f"{key:016x}", place.label, _per_minute(place.count), _per_minute(place.excess))
                for key, place in self._hot.top(self._most)
            )
            return Traffic(_per_minute(self._received), _per_minute(self._other_view), top)

    def _label(self, key: int, request: Any) -> str:
        task = request.task
        return self._router.label(key, task.name, request.args, request.kwargs, task)


def _per_minute(count: float) -> float:
    return round(count / _COUNT_PER_MINUTE, 2)
