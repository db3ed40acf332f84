"""Pictures in plain HTML and CSS, drawn from what was recorded; they fit any width and need no script."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .trace import Run

#: How many colours the page's style has; further clients begin anew.
_COLOURS = 8
_TICKS = 4


def gantt(runs: Sequence[Run], sent: Mapping[str, float], caption: str) -> str:
    """Who ran where and when: a lane for each process, a bar for each run, a colour for each client."""
    begin, end = _span(runs, sent)
    colours = _colours(run.client for run in runs)
    lanes: dict[tuple[str, int], list[Run]] = {}
    for run in sorted(runs, key=lambda run: (run.worker, run.pid, run.start)):
        lanes.setdefault((run.worker, run.pid), []).append(run)
    rows = []
    for number, ((worker, _), lane) in enumerate(lanes.items()):
        first = not number or list(lanes)[number - 1][0] != worker
        bars = "".join(_bar(run, sent, begin, end, colours[run.client]) for run in lane)
        rows.append(f'<div class="name">{escape(worker) if first else ""}</div><div class="lane">{bars}</div>')
    legend = "".join(f'<li><i class="c{colour}"></i>{escape(client)}</li>' for client, colour in colours.items())
    return _figure(
        caption,
        f'<div class="gantt">{"".join(rows)}<div></div>{_axis(end - begin)}</div><ul class="legend">{legend}</ul>',
    )


def comparison(rows: Iterable[tuple[str, float, float]], names: tuple[str, str], caption: str) -> str:
    """Two bars for each label, to the same scale: seconds before and after."""
    rows = list(rows)
    longest = max((max(pair) for _, *pair in rows), default=0) or 1
    lines = []
    for label, *pair in rows:
        bars = "".join(
            f'<div class="meter"><i class="k{kind}" style="width:{100 * value / longest:.2f}%"></i>'
            f"<span>{value:.2f} s</span></div>"
            for kind, value in enumerate(pair)
        )
        lines.append(f'<div class="name">{escape(label)}</div><div>{bars}</div>')
    legend = "".join(f'<li><i class="k{kind}"></i>{escape(name)}</li>' for kind, name in enumerate(names))
    return _figure(caption, f'<div class="gantt">{"".join(lines)}</div><ul class="legend">{legend}</ul>')


def steps(series: Mapping[str, Sequence[tuple[float, int]]], caption: str, *, limit: int | None = None) -> str:
    """Numbers over time as stairs, with an optional line that must not be crossed."""
    points = [point for line in series.values() for point in line]
    begin, end = min(at for at, _ in points), max(at for at, _ in points)
    span = (end - begin) or 1
    top = max([value for _, value in points] + [limit or 0, 1])

    def y(value: float) -> float:
        return 38 - 36 * value / top

    paths = []
    for number, line in enumerate(series.values()):
        places = [(100 * (at - begin) / span, y(value)) for at, value in line]
        path = f"M{places[0][0]:.2f},{places[0][1]:.2f}" + "".join(f"H{x:.2f}V{high:.2f}" for x, high in places[1:])
        paths.append(f'<path class="s{number}" d="{path}"/>')
    if limit is not None:
        paths.append(f'<path class="limit" d="M0,{y(limit):.2f}H100"/>')
    names = [*(f'<li><i class="k{number}"></i>{escape(name)}</li>' for number, name in enumerate(series))]
    if limit is not None:
        names.append(f'<li><i class="limit"></i>limit {limit}</li>')
    return _figure(
        caption,
        f'<div class="gantt"><div class="name top">{top}</div><div class="stairs">'
        f'<svg viewBox="0 0 100 40" preserveAspectRatio="none"'
        f' role="img" aria-label="{escape(caption)}">{"".join(paths)}</svg></div><div></div>{_axis(span)}</div>'
        f'<ul class="legend">{"".join(names)}</ul>',
    )


def rings(states: Mapping[str, tuple[Mapping[str, Sequence[int]], Mapping[str, tuple[int, str]]]], caption: str) -> str:
    """Rings side by side, with a colour for each worker, and on each ring the keys at their places.

    Args:
        states: Title -> (worker -> its positions, key -> its position and the worker that has it); positions are below
            2**64, one turn of the circle.
        caption: What is seen.
    """
    workers = sorted({name for positions, _ in states.values() for name in positions})
    keys = sorted({key for _, owned in states.values() for key in owned})
    colour_of = {name: number % _COLOURS for number, name in enumerate(workers)}
    number_of = {key: str(number) for number, key in enumerate(keys, 1)}
    drawings = []
    for title, (positions, owned) in states.items():
        arcs = "".join(
            f'<path class="w{colour_of[name]}" d="{_arc(begin, end)}"/>' for begin, end, name in _stretches(positions)
        )
        dots = "".join(
            f"<g><title>{escape(f'{key}: {worker}')}</title>{_dot(at, number_of[key], colour_of[worker])}</g>"
            for key, (at, worker) in owned.items()
        )
        drawings.append(
            f'<div class="ring"><svg viewBox="-110 -110 220 220" role="img" aria-label="{escape(title)}">{arcs}{dots}'
            f'<text class="title" y="5">{escape(title)}</text></svg></div>'
        )
    last = list(states.values())[-1][1]
    named = "".join(
        f'<li><b class="number">{number_of[key]}</b>{escape(key)}: worker {escape(last[key][1])}</li>'
        for key in keys
        if key in last
    )
    legend = "".join(f'<li><i class="c{colour}"></i>worker {escape(name)}</li>' for name, colour in colour_of.items())
    return _figure(
        caption,
        f'<div class="rings">{"".join(drawings)}</div><ul class="legend">{legend}</ul><ul class="legend">{named}</ul>',
    )


def table(rows: Iterable[tuple[str, str]], caption: str) -> str:
    """Names and figures."""
    lines = "".join(f"<tr><td>{escape(name)}</td><td>{escape(figure)}</td></tr>" for name, figure in rows)
    return _figure(caption, f"<table>{lines}</table>")


def most_in_window(times: Sequence[float], length: float) -> int:
    """The most of `times` that lie in any window of `length` seconds; 0 where there are none."""
    return max((count for _, count in in_window(times, length)), default=0)


def in_window(times: Sequence[float], length: float) -> list[tuple[float, int]]:
    """How many of `times` lie in the window of `length` seconds that ends at each moment: stairs for `steps`."""
    changes = sorted([(at, 1) for at in times] + [(at + length, -1) for at in times])
    stairs, count = [], 0
    for at, change in changes:
        count += change
        stairs.append((at, count))
    return stairs


def _span(runs: Sequence[Run], sent: Mapping[str, float]) -> tuple[float, float]:
    begin = min(min(run.start, sent.get(run.task_id, run.start)) for run in runs)
    return begin, max([run.end or run.start for run in runs] + [begin + 0.001])


def _bar(run: Run, sent: Mapping[str, float], begin: float, end: float, colour: int) -> str:
    stop = run.end if run.end is not None else end
    left, width = (100 * part / (end - begin) for part in (run.start - begin, stop - run.start))
    waited = f", waited {run.start - sent[run.task_id]:.2f} s" if run.task_id in sent else ""
    # A body that ended in the last moment still shows.
    left = min(left, 99.5)
    tip = escape(f"{run.client}: {run.task}{waited}, ran {stop - run.start:.2f} s")
    return f'<i class="c{colour}" style="left:{left:.2f}%;width:{width:.2f}%" title="{tip}"></i>'


_TURN = 2**64
_INNER, _OUTER, _KEYS = 72.0, 92.0, 58.0  # of a drawing that reaches from -110 to 110


def _stretches(positions: Mapping[str, Sequence[int]]) -> Iterator[tuple[float, float, str]]:
    """(from, to, owner) in turns of the circle; a point owns what lies before it, neighbours of one owner are one."""
    points = sorted((point / _TURN, name) for name, found in positions.items() for point in found)
    if not points:
        return
    begin = points[-1][0] - 1
    for number, (at, name) in enumerate(points):
        if number + 1 < len(points) and points[number + 1][1] == name:
            continue
        yield begin, at, name
        begin = at


def _place(turn: float, radius: float) -> str:
    angle = 2 * math.pi * turn
    return f"{radius * math.sin(angle):.2f},{-radius * math.cos(angle):.2f}"


def _arc(begin: float, end: float) -> str:
    # Two halves: one arc cannot go all the way round.
    middle = (begin + end) / 2
    out = f"A{_OUTER:g},{_OUTER:g},0,0,1,"
    back = f"A{_INNER:g},{_INNER:g},0,0,0,"
    return (
        f"M{_place(begin, _OUTER)}{out}{_place(middle, _OUTER)}{out}{_place(end, _OUTER)}"
        f"L{_place(end, _INNER)}{back}{_place(middle, _INNER)}{back}{_place(begin, _INNER)}Z"
    )


def _dot(position: int, number: str, colour: int) -> str:
    turn = position / _TURN
    x, y = _place(turn, _KEYS).split(",")
    return (
        f'<path class="spoke" d="M{_place(turn, _KEYS)}L{_place(turn, _OUTER + 6)}"/>'
        f'<circle class="f{colour}" cx="{x}" cy="{y}" r="8.5"/><text x="{x}" y="{float(y) + 3.5:.2f}">{number}</text>'
    )


def _axis(span: float) -> str:
    digits = 1 if span >= 2 else 2
    ticks = "".join(f"<span>{span * tick / _TICKS:.{digits}f} s</span>" for tick in range(_TICKS + 1))
    return f'<div class="axis">{ticks}</div>'


def _colours(clients: Iterable[str]) -> dict[str, int]:
    return {client: number % _COLOURS for number, client in enumerate(sorted(set(clients)))}


def _figure(caption: str, body: str) -> str:
    return f"<figure><figcaption>{escape(caption)}</figcaption>{body}</figure>"
