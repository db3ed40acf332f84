"""What a tour shows while it runs: colours and a moving picture in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import TextIO

_BAR = 30


class Plain:
    """Lines only; for files, pipes and terminals without rich.

    Args:
        stream: Where to write.
    """

    #: Seconds between two lines of a moving picture.
    pace = 1.0

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def chapter(self, number: int, title: str, promise: str) -> None:
        """Begin a chapter."""
        self._write(f"\n{number}. {title}")
        self.say(promise)

    def say(self, text: str) -> None:
        """A line of the story."""
        self._write(f"   {text}")

    def kept(self, promise: str) -> None:
        """A promise that came true."""
        self._write(f"   ok: {promise}")

    def broken(self, promise: str, seen: str) -> None:
        """A promise that did not."""
        self._write(f"   FAILED: {promise}; instead: {seen}")

    @contextmanager
    def moving(self) -> Iterator[Any]:
        """A picture that moves: yields a function that takes {label: (value, whole)}."""
        last: list[Any] = [0.0, None]

        def show(bars: Mapping[str, tuple[int, int]]) -> None:
            now = time.monotonic()
            if now - last[0] >= self.pace and bars != last[1]:
                last[:] = now, dict(bars)
                self.say(", ".join(f"{label} {value}/{whole}" for label, (value, whole) in bars.items()))

        yield show

    def _write(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


class Rich(Plain):
    """In colours, with bars that move in place."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        from rich.console import Console

        self._console = Console(file=stream, highlight=False)

    def chapter(self, number: int, title: str, promise: str) -> None:
        """Begin a chapter."""
        self._console.print(f"\n[bold cyan]{number}. {title}[/]")
        self._console.print(f"   [dim]{promise}[/]")

    def kept(self, promise: str) -> None:
        """A promise that came true."""
        self._console.print(f"   [green]✓[/] {promise}")

    def broken(self, promise: str, seen: str) -> None:
        """A promise that did not."""
        self._console.print(f"   [bold red]✗ {promise}[/]; instead: {seen}")

    def say(self, text: str) -> None:
        """A line of the story."""
        self._console.print(f"   {text}", markup=False)

    @contextmanager
    def moving(self) -> Iterator[Any]:
        """A picture that moves in place and stays as it was last."""
        from rich.live import Live
        from rich.text import Text

        with Live(console=self._console, refresh_per_second=12) as live:

            def show(bars: Mapping[str, tuple[int, int]]) -> None:
                width = max(map(len, bars), default=0)
                # What is left of a narrow terminal beside the label and the figures.
                whole_bar = max(4, min(_BAR, self._console.width - width - 16))
                lines = []
                for label, (value, whole) in bars.items():
                    filled = round(whole_bar * min(value, whole) / whole) if whole else 0
                    lines.append(f"   {label:<{width}} {'█' * filled}{'░' * (whole_bar - filled)} {value}/{whole}")
                live.update(Text("\n".join(lines)))

            yield show


def screen(stream: TextIO | None = None) -> Plain:
    """The best screen for a stream; standard output by default."""
    stream = stream or sys.stdout
    if stream.isatty() and (stream.encoding or "").lower().startswith("utf"):
        try:
            return Rich(stream)
        except ImportError:  # the extra [tour] brings rich
            pass
    return Plain(stream)
