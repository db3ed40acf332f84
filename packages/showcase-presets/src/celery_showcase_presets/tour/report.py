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
        number: Its number in the tour.
        seconds: How long it took.
        highlights: Figures for the head of the page, each with what it means.
        broken: The promise that did not come true, and what was seen instead.
    """

    number: int
    title: str
    promise: str
    seconds: float
    kept: Sequence[str]
    pictures: Sequence[str]
    highlights: Sequence[tuple[str, str]] = ()
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
    facts = (f"{seconds:.1f} s", f"Celery {version('celery')}", f"Python {platform.python_version()}", server)
    ground = "".join(f"<li>{escape(fact)}</li>" for fact in (*facts, f"{os.cpu_count()} processors"))
    cards = "".join(
        f'<li><a href="#chapter-{told.number}"><b>{escape(figure)}</b>{escape(meaning)}</a></li>'
        for told in chapters
        for figure, meaning in told.highlights
    )
    contents = "".join(
        f'<li><a href="#chapter-{told.number}"><span class="number">{told.number}</span>{escape(told.title)}'
        f"<small>{told.seconds:.1f} s</small></a></li>"
        for told in chapters
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>Celery Toolkit: the tour</title><style>{style}</style></head><body>"
        f'<header><p class="above">Celery Toolkit</p><h1>The tour, as it went</h1>'
        f'<p class="verdict{" bad" if failed else ""}">{verdict}</p>'
        f'<p class="lead">Real workers, a real server: every picture is drawn from what the workers of this run wrote '
        f'into a file.</p><ul class="facts">{ground}</ul><ul class="cards">{cards}</ul>'
        f'<nav aria-label="Chapters"><ol>{contents}</ol></nav></header>'
        f"<main>{''.join(map(_section, chapters))}</main></body></html>\n"
    )


def _section(told: Told) -> str:
    promises = "".join(f"<li>{escape(promise)}</li>" for promise in told.kept)
    if told.broken:
        promises += f'<li class="broken">{escape(told.broken)}</li>'
    return (
        f'<section id="chapter-{told.number}"><h2><span class="number">{told.number}</span>{escape(told.title)}</h2>'
        f'<p class="promise">{escape(told.promise)}</p><ul class="kept">{promises}</ul>'
        f"{''.join(told.pictures)}</section>"
    )
