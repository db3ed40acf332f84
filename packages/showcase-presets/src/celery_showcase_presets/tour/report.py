"""The page at the end of a tour: one file, no script, nothing loaded from elsewhere."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from html import escape
from importlib.metadata import version
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FILE_NAME = "report.html"


@dataclass(frozen=True, slots=True)
class Told:
    """A chapter as it went.

    Attributes:
        seconds: How long it took.
        broken: The promise that did not come true, and what was seen instead.
    """

    title: str
    promise: str
    seconds: float
    kept: Sequence[str]
    pictures: Sequence[str]
    broken: str | None = None


def write(folder: Path, chapters: Sequence[Told], server: str, seconds: float) -> Path:
    """Write the page into `folder`, which is made if need be and keeps itself out of version control."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".gitignore").write_text("*\n")
    path = folder / FILE_NAME
    # Two tours may write here at once: each page appears whole.
    draft = folder / f".{FILE_NAME}.{os.getpid()}"
    draft.write_text(page(chapters, server, seconds), encoding="utf-8")
    return draft.replace(path)


def page(chapters: Sequence[Told], server: str, seconds: float) -> str:
    """The page's HTML."""
    style = files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    failed = any(chapter.broken for chapter in chapters)
    verdict = "A promise was broken" if failed else f"{sum(len(told.kept) for told in chapters)} promises, all kept"
    ground = f"Celery {version('celery')}, Python {platform.python_version()}, {server}, {os.cpu_count()} processors"
    rows = "".join(f"<tr><td>{escape(told.title)}</td><td>{told.seconds:.1f} s</td></tr>" for told in chapters)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>Celery Toolkit: the tour</title><style>{style}</style></head><body>"
        f"<header><h1>Celery Toolkit: the tour</h1><p>{verdict}, in {seconds:.1f} s.</p><p>{escape(ground)}.</p>"
        f"<p>Every picture is drawn from what the workers of this run recorded.</p><table>{rows}</table></header>"
        f"<main>{''.join(map(_section, chapters))}</main></body></html>\n"
    )


def _section(told: Told) -> str:
    promises = "".join(f"<li>{escape(promise)}</li>" for promise in told.kept)
    if told.broken:
        promises += f'<li class="broken">{escape(told.broken)}</li>'
    return (
        f"<section><h2>{escape(told.title)}</h2><p>{escape(told.promise)}</p>"
        f'<ul class="kept">{promises}</ul>{"".join(told.pictures)}</section>'
    )
