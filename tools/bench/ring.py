"""The bench of core's hash ring, beside uhashring.

A module of its own, and so a process of its own: once redis-py is imported, hashlib's md5 takes twice as long, which
would flatter us.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import uhashring  # type: ignore[import-untyped]  # it has no types
from measure import Table, judged, kibibytes, side_by_side

from celery_toolkit_core.canonical import hash_function
from celery_toolkit_core.ring import HashRing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def tables() -> Iterator[Table]:
    """The table of the ring."""
    table = Table("core: hash ring", ["what", "ours", "uhashring", "ratio or size", "target"])
    names = {amount: [f"worker{number}" for number in range(amount)] for amount in (10, 100)}
    keys = [f"customer:{number}" for number in range(1000)]

    def lookups(get: Callable[[str], Any]) -> Callable[[], None]:
        def run() -> None:
            for key in keys:
                get(key)

        return run

    for amount in names:
        calls = {
            "blake2b": lookups(HashRing(names[amount]).get),
            "xxh3": lookups(HashRing(names[amount], function=hash_function("xxh3")).get),
            "theirs": lookups(uhashring.HashRing(nodes=names[amount], vnodes=150).get_node),
        }
        spans = {name: span / len(keys) for name, span in side_by_side(calls, rounds=100).items()}
        for name, most in (("blake2b", 0.65), ("xxh3", 0.3)):
            times = [f"{spans[each]:.0f} ns" for each in (name, "theirs")]
            ratio = spans[name] / spans["theirs"]
            cells = judged(ratio, most) if amount == 10 else (f"{ratio:.2f}", "")
            table.add(f"lookup, {amount} x 150, {name}", *times, *cells)
    ours = kibibytes(lambda: HashRing(names[10]))
    theirs = kibibytes(lambda: uhashring.HashRing(nodes=names[10], vnodes=150))
    table.add("memory, 10 x 150", f"{ours:.0f} KiB", f"{theirs:.0f} KiB", *judged(ours, 80.0, "{:.0f} KiB"))
    spans = side_by_side(
        {
            "ours": lambda: HashRing(names[100]),
            "theirs": lambda: uhashring.HashRing(nodes=names[100], vnodes=150),
        },
        rounds=9,
    )
    figures = [f"{spans[name] / 1e6:.1f} ms" for name in ("ours", "theirs")]
    # The target of 8 ms was set on a machine where uhashring takes 17.5 ms.
    table.add("build, 100 x 150", *figures, *judged(spans["ours"] / spans["theirs"], 8 / 17.5))
    yield table
