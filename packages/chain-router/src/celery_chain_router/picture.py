"""A picture of a ring: who owns which stretch, and how much that is."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from celery_toolkit_core.ring import HashRing

_SPACE = 2**64
_ROW = 26

_HEAD = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 920 {height}">
<style>text {{ fill: #24292f; font: 14px system-ui, sans-serif }} .bar {{ fill: #d0d7de }} .head {{ font-size: 12px }}
@media (prefers-color-scheme: dark) {{ text {{ fill: #e6edf3 }} .bar {{ fill: #444c56 }} }}</style>
<title>Ring of {workers} workers, fingerprint {fingerprint}</title>"""


def ring_picture(ring: HashRing, load: Mapping[str, float] | None = None) -> str:
    """The ring as SVG, complete in itself: each worker has a colour, its exact share of the keys and its load.

    Args:
        ring: The ring.
        load: Worker -> messages per minute, where it is known.
    """
    shares, load = ring.shares(), load or {}
    colours = {name: _colour(index) for index, name in enumerate(ring)}
    height = max(320, 80 + _ROW * len(ring))
    lines = [_HEAD.format(height=height, workers=len(ring), fingerprint=ring.fingerprint)]
    for start, end, name in _stretches(ring):
        lines.append(f'<path d="{_arc(start, end)}" fill="none" stroke="{colours[name]}" stroke-width="36"/>')
    lines.append(f'<text x="160" y="165" text-anchor="middle">{len(ring)} workers</text>')
    lines.append('<text class="head" x="550" y="30">share of the keys</text>')
    lines.append('<text class="head" x="740" y="30">messages per minute</text>')
    largest, busiest = max(shares.values(), default=1.0), max(load.values(), default=0.0) or 1.0
    for index, (name, share) in enumerate(shares.items()):
        y = 60 + _ROW * index
        label = name if len(name) <= 22 else f"{name[:21]}…"
        lines.append(f'<rect x="340" y="{y - 12}" width="14" height="14" fill="{colours[name]}"/>')
        lines.append(f'<text x="362" y="{y}">{escape(label)}</text>')
        lines += _bar(550, y, share / largest, f"{share:.1%}")
        lines += _bar(740, y, load[name] / busiest, f"{load[name]:,.0f}") if name in load else []
    return "\n".join([*lines, "</svg>\n"])


def _bar(x: int, y: int, length: float, text: str) -> list[str]:
    return [
        f'<rect class="bar" x="{x}" y="{y - 12}" width="{100 * length:.1f}" height="14"/>',
        f'<text x="{x + 106}" y="{y}">{text}</text>',
    ]


def _stretches(ring: HashRing) -> Iterator[tuple[float, float, str]]:
    """(from, to, owner) in turns of the circle, neighbours of one owner taken together."""
    points = sorted((point / _SPACE, name) for name in ring for point in ring.positions(name))
    if not points:
        return
    start = points[-1][0] - 1
    for index, (end, name) in enumerate(points):
        if index + 1 < len(points) and points[index + 1][1] == name:
            continue
        yield start, end, name
        start = end


def _arc(start: float, end: float, radius: float = 120) -> str:
    def at(turn: float) -> str:
        angle = 2 * math.pi * turn
        return f"{160 + radius * math.sin(angle):.2f} {160 - radius * math.cos(angle):.2f}"

    # A whole circle has no arc of its own: it is drawn as two halves.
    if end - start > 0.999:
        return f"M {at(0)} A {radius} {radius} 0 0 1 {at(0.5)} A {radius} {radius} 0 0 1 {at(1)}"
    return f"M {at(start)} A {radius} {radius} 0 {int(end - start > 0.5)} 1 {at(end)}"


def _colour(index: int) -> str:
    # The golden angle keeps neighbours in the list apart in colour, however many there are.
    return f"hsl({index * 137.508 % 360:.0f} 65% {(48, 62, 38)[index % 3]}%)"
