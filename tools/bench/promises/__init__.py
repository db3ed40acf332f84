"""What each package keeps when limits are reached and workers die: ours beside the older ones, with real workers.

Each has its defaults, an environment of its own, a server of its own, and the same tasks. What a body did stands in a
file outside Redis.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from . import keys, limit, losses, places

if TYPE_CHECKING:
    from collections.abc import Iterator

    from measure import Chart, Table


def tables() -> Iterator[Table | Chart]:
    """All that is promised."""
    yield from limit.kept()
    # These mostly wait.
    with ThreadPoolExecutor(len(losses.LOSSES) + len(keys.KEYS)) as pool:
        lost, asked = pool.map(losses.lose, losses.LOSSES), pool.map(keys.ask, keys.KEYS)
        yield from losses.shown(list(lost))
        yield from keys.shown(list(asked))
    yield from places.shown()
