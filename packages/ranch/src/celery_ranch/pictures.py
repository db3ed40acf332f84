"""Pictures of who waited how long, as SVG that needs nothing else."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from .standings import percentile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_WIDTH, _LEFT, _RIGHT = 920, 130, 220
_ROW, _BAR, _HEAD, _GAP = 20, 10, 30, 26
_PLOT = _WIDTH - _LEFT - _RIGHT
#: The client with most tasks, and everybody else; told apart with any kind of sight.
_BULK, _OTHERS = "#9aa5b1", "#0b6bcb"
#: Rows drawn in one panel.
_MOST_ROWS = 12
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#1f2933}.n{font-weight:600}.s{fill:#52606d;font-size:12px}"
    "line{stroke:#d3dae2}"
)


@dataclass(frozen=True, slots=True)
class Wait:
    """One task's wait; times in seconds from the beginning of the run."""

    client: str
    sent: float
    began: float

    @property
    def seconds(self) -> float:
        """How long it waited."""
        return self.began - self.sent


def picture(title: str, runs: Mapping[Any, Sequence[Wait]]) -> str:
    """Draw some runs of the same tasks under each other, on one scale of time.

    Each bar is the wait of one task, from when it was sent to when it began; each row a client.

    Args:
        title: What the picture shows.
        runs: The waits of each run by the run's name.
    """
    end = max((wait.began for waits in runs.values() for wait in waits), default=0.0) or 1.0
    parts: list[str] = []
    top = _HEAD + 10
    for name, waits in runs.items():
        rows = _by_client(waits)[:_MOST_ROWS]
        parts.append(f'<text class="n" x="10" y="{top}">{escape(name)}</text>')
        top += 8
        parts += [_row(client, mine, top + _ROW * index, end, index) for index, (client, mine) in enumerate(rows)]
        top += _ROW * len(rows) + _GAP
    axis = [_tick(seconds, end, top - _GAP + 6) for seconds in _ticks(end)]
    height = top + 14
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}" '
        f'role="img"><title>{escape(title)}</title><style>{_STYLE}</style>'
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>'
        f'<text class="n" x="10" y="20" style="font-size:15px">{escape(title)}</text>'
        f"{''.join(axis)}{''.join(parts)}</svg>\n"
    )


def rows_of(waits: Sequence[Wait]) -> list[dict[str, str | int | float]]:
    """The waits of one run by client, as rows of a table; seconds."""
    return [
        {
            "client": client,
            "tasks": len(mine),
            "wait_p50": round(percentile([wait.seconds for wait in mine], 50) or 0.0, 3),
            "wait_p95": round(percentile([wait.seconds for wait in mine], 95) or 0.0, 3),
            "wait_most": round(max(wait.seconds for wait in mine), 3),
        }
        for client, mine in _by_client(waits)
    ]


def _by_client(waits: Sequence[Wait]) -> list[tuple[str, list[Wait]]]:
    """The clients and their waits, most tasks first."""
    found: dict[str, list[Wait]] = defaultdict(list)
    for wait in waits:
        found[wait.client].append(wait)
    return sorted(found.items(), key=lambda row: (-len(row[1]), row[0]))


def _row(client: str, waits: list[Wait], top: float, end: float, index: int) -> str:
    colour = _OTHERS if index else _BULK
    bars = "".join(
        f'<rect x="{_LEFT + _PLOT * wait.sent / end:.1f}" y="{top + (_ROW - _BAR) / 2:g}" rx="2" '
        f'width="{max(2.0, _PLOT * wait.seconds / end):.1f}" height="{_BAR}"/>'
        for wait in waits
    )
    seconds = [wait.seconds for wait in waits]
    text = f"{len(waits)} x, median {percentile(seconds, 50):.1f} s, most {max(seconds):.1f} s"
    middle = top + _ROW / 2 + 4
    return (
        f'<text x="{_LEFT - 8}" y="{middle:g}" text-anchor="end">{escape(client[:18])}</text>'
        f'<g fill="{colour}" fill-opacity=".55">{bars}</g>'
        f'<text class="s" x="{_WIDTH - _RIGHT + 10}" y="{middle:g}">{text}</text>'
    )


def _ticks(end: float) -> list[float]:
    """Round moments up to `end`, four to ten of them."""
    step = 10.0 ** math.floor(math.log10(end))
    step = next(part for part in (step, step / 2, step / 5) if end / part >= 4)
    return [step * number for number in range(math.floor(end / step) + 1)]


def _tick(seconds: float, end: float, bottom: float) -> str:
    x = _LEFT + _PLOT * seconds / end
    return (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_HEAD + 2}" y2="{bottom:g}"/>'
        f'<text class="s" x="{x:.1f}" y="{bottom + 14:g}" text-anchor="middle">{seconds:.3g} s</text>'
    )
