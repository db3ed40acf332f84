"""What all benches share: tables with the target beside the figure, and timings taken side by side."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
import tracemalloc
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from celery_toolkit_testkit import TcpProxy

HERE = Path(__file__).parent
#: Where the bars of a picture begin.
_LEFT = 320


@dataclass
class Table:
    """A Markdown table; `str` gives its text, `drawn` puts a picture below it.

    Args:
        title: What is measured.
        columns: Their heads.
        note: A sentence below.
        picture: Name of the picture's file and unit of its values; without it there is none.
        bars: Column -> whose it is; each row gives a bar of each of these columns, below each other.
        labels: How many of the first columns tell one row from another.
    """

    title: str
    columns: Sequence[str]
    note: str = ""
    picture: tuple[str, str] | None = None
    bars: Mapping[str, str] = field(default_factory=dict)
    labels: int = 1
    rows: list[Sequence[str]] = field(default_factory=list)

    def add(self, *cells: str) -> None:
        """Add a row."""
        assert len(cells) == len(self.columns), cells
        self.rows.append(cells)

    def __str__(self) -> str:
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        parts = [f"### {self.title}", "\n".join(f"| {' | '.join(line)} |" for line in lines)]
        return "\n\n".join([*parts, self.note] if self.note else parts)

    def drawn(self, folder: Path) -> str:
        """The table, and the Markdown of its picture, which is written into `folder`."""
        if self.picture is None:
            return str(self)
        name, unit = self.picture
        places = {self.columns.index(column): whose for column, whose in self.bars.items()}
        bars = {
            ", ".join([f"{cell} {self.columns[at]}" for at, cell in enumerate(row[: self.labels])] + [whose]): (
                _number(row[place])
            )
            for row in self.rows
            for place, whose in places.items()
        }
        return f"{self}\n\n{Chart(name, self.title, unit, bars).picture(folder)}"


def _number(cell: str) -> float | None:
    """The figure in a cell; ``None`` when it has none."""
    found = re.search(r"\d[\d,]*(\.\d+)?", cell)
    return float(found[0].replace(",", "")) if found else None


@dataclass
class Chart:
    """Bars, one below the other; `str` gives a table, `drawn` a picture.

    Args:
        name: Of the picture's file, such as ``ranch-place``.
        title: What is compared.
        unit: Of the values.
        bars: Label -> value, or ``None`` for what could not be measured.
        note: A sentence below.
    """

    name: str
    title: str
    unit: str
    bars: Mapping[str, float | None]
    note: str = ""

    def __str__(self) -> str:
        table = Table(self.title, ("", self.unit), self.note)
        for label, value in self.bars.items():
            table.add(label, "not measured" if value is None else f"{value:,.4g}")
        return str(table)

    def drawn(self, folder: Path) -> str:
        """Write the picture into `folder`; the Markdown of title, picture and note."""
        return f"### {self.title}\n\n{self.picture(folder)}" + (f"\n\n{self.note}" if self.note else "")

    def picture(self, folder: Path) -> str:
        """Write the picture into `folder`; the Markdown that shows it, its figures told to who cannot see it."""
        path = folder / f"comparison-{self.name}.svg"
        path.write_text(self.svg(), encoding="utf-8")
        told = "; ".join(f"{label}: {value:,.4g}" for label, value in self.bars.items() if value is not None)
        return f"![{self.title}. {told} {self.unit}]({path.name})".replace("`", "")

    def svg(self) -> str:
        """A picture on a ground of its own, for light and dark, readable without its page."""
        most = max(filter(None, self.bars.values()), default=1.0)
        rows = []
        for at, (label, value) in enumerate(self.bars.items()):
            y = 16 + 34 * at
            rows.append(f'<text x="{_LEFT - 12}" y="{y + 16}" text-anchor="end">{escape(label)}</text>')
            if value is None:
                rows.append(f'<text x="{_LEFT}" y="{y + 16}" class="soft">not measured</text>')
                continue
            width = max(2.0, 300 * value / most)
            kind = "own" if "toolkit" in label else "other"
            rows.append(f'<rect x="{_LEFT}" y="{y}" width="{width:.1f}" height="22" rx="3" class="{kind}"/>')
            rows.append(f'<text x="{_LEFT + 8 + width:.1f}" y="{y + 16}" class="soft">{value:,.4g}</text>')
        height = 34 * len(self.bars) + 42
        style = (
            "text{font:14px system-ui,sans-serif;fill:#1f2933}.soft{fill:#52606d}.ground{fill:#f7f8fa}"
            ".own{fill:#0f8a5f}.other{fill:#9aa5b1}"
            "@media(prefers-color-scheme:dark){text{fill:#e4e7eb}.soft{fill:#cbd2d9}.ground{fill:#1f2430}"
            ".own{fill:#3ebd93}.other{fill:#7b8794}}"
        )
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 {height}" role="img">'
            f"<title>{escape(self.title)}</title><style>{style}</style>"
            f'<rect width="720" height="{height}" rx="8" class="ground"/>{"".join(rows)}'
            f'<text x="{_LEFT}" y="{height - 14}" class="soft">{escape(self.unit)}</text></svg>\n'
        )


def judged(value: float, most: float, form: str = "{:.2f}") -> tuple[str, str]:
    """A figure and its target as two cells; a figure above the target is marked."""
    shown = form.format(value)
    return shown if value <= most else f"**{shown}** (missed)", f"<= {form.format(most)}"


@dataclass(frozen=True)
class Operation:
    """One public call to be measured.

    Attributes:
        name: As a user writes it.
        call: The call; its argument is a number that is new each time.
        before: What must be so for it, not measured; same number.
    """

    name: str
    call: Callable[[int], Any]
    before: Callable[[int], Any] | None = None


def round_trips(proxy: TcpProxy, operation: Operation, times: int = 20) -> float:
    """How often a client waits for the server per call, counted on the wire, once the server knows the scripts."""
    total = 0
    for number in range(times):
        if operation.before:
            operation.before(number)
        if number == 0:
            # The first call loads the script.
            operation.call(number)
            if operation.before:
                operation.before(number)
        counted = proxy.round_trips
        operation.call(number)
        total += proxy.round_trips - counted
    return total / times


def ratios(base: Callable[[int], Any], operations: Sequence[Operation], *, rounds: int) -> dict[str, float]:
    """Operation -> how many times as long as `base` it takes: medians of calls made in turn."""
    spans: dict[str, list[int]] = {operation.name: [] for operation in operations}
    base_spans: list[int] = []
    gc.collect()
    gc.disable()
    try:
        for number in range(rounds):
            for operation in operations:
                if operation.before:
                    operation.before(number)
                base_spans.append(_span(partial(base, number)))
                spans[operation.name].append(_span(partial(operation.call, number)))
    finally:
        gc.enable()
    return {name: median(each) / median(base_spans) for name, each in spans.items()}


def server_microseconds(client: Any, operation: Operation, times: int = 200) -> float:
    """How long the server itself works on one call, by its own clock: it bounds the calls of all clients together."""
    if operation.before:
        for number in range(times):
            operation.before(number)
    client.config_resetstat()
    for number in range(times):
        operation.call(number)
    stats = client.info("commandstats")
    total: float = sum(each["usec"] for name, each in stats.items() if name.startswith("cmdstat_eval"))
    return total / times


def side_by_side(calls: Mapping[str, Callable[[], Any]], *, rounds: int) -> dict[str, float]:
    """Name -> nanoseconds of one call: the least of many made in turn, since what is above it is others' work."""
    spans: dict[str, list[int]] = {name: [] for name in calls}
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, call in calls.items():
                spans[name].append(_span(call))
    finally:
        gc.enable()
    return {name: float(min(each)) for name, each in spans.items()}


def kibibytes(make: Callable[[], Any]) -> float:
    """Memory that Python holds for what `make` returns."""
    make()  # what is cached on the first call is not its own
    gc.collect()
    tracemalloc.start()
    try:
        kept = make()
        gc.collect()
        size = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    del kept
    return size / 1024


def foreign_python(folder: Path, *packages: str) -> Path | None:
    """A Python of its own in `folder` that has these packages, for those that cannot be installed beside ours.

    ``None`` when they cannot be installed; why stands on standard error.
    """
    uv = subprocess.run(["sh", HERE.parent / "uv.sh"], capture_output=True, text=True, check=False).stdout.strip()
    python = folder / "venv" / "bin" / "python"
    for arguments in (
        ["venv", "--quiet", "--python", sys.executable, str(folder / "venv")],
        ["pip", "install", "--quiet", "--python", str(python), *packages],
    ):
        done = subprocess.run([uv or "uv", *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"not measured: {' '.join(packages)}: {done.stderr.strip()}", file=sys.stderr)
            return None
    return python


def _span(call: Callable[[], Any]) -> int:
    start = perf_counter_ns()
    call()
    return perf_counter_ns() - start
