"""Every example of the READMEs and the documentation is run: the Python for real, the commands as far as parsing.

The blocks of a page run one after the other in one process, as its reader would type them. A block that begins with a
file's name becomes that file. `READER` holds what a page leaves to its reader.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import click
import pytest
from celery import Celery
from celery.bin.celery import celery

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted(ROOT.glob("packages/*/README.md")),
    *sorted(ROOT.glob("docs/**/*.md")),
]
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=indent)```", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"^# ([\w/]+\.py)\n")
#: Languages of blocks that are only to be read; one without a language is a drawing or what a program says.
READ_ONLY = {"", "diff", "ini", "make"}
#: A server on the reader's own machine.
LOCAL = re.compile(r"redis://localhost(:6379)?(?=[/\"'])")

READER = {
    "docs/heimdall.md": "tokens_used = 3",
    "packages/ranch/README.md": "ten_thousand_images = [f'{number}.jpg' for number in range(20)]",
}

#: Ends a page that waits for results: with a worker in a thread.
WITH_WORKER = """
from celery.contrib.testing.worker import start_worker
worker = start_worker(app, perform_ping_check=False, loglevel="WARNING", shutdown_timeout=30)
worker.__enter__()
"""


class Example(NamedTuple):
    """One block of a page."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def examples(page: Path, *languages: str) -> Iterator[Example]:
    source = page.read_text(encoding="utf-8")
    for match in FENCE.finditer(source):
        if match["language"] in languages:
            lines = match["text"].splitlines(keepends=True)
            text = "".join(line.removeprefix(match["indent"]) for line in lines)
            yield Example(page, source.count("\n", 0, match.start("text")) + 1, match["language"], text)


def script(blocks: list[Example], folder: Path, url: str) -> str:
    """One program of all blocks of a page; tracebacks name the page's own lines."""
    page = str(blocks[0].page.relative_to(ROOT))
    parts = ["import importlib", READER.get(page, "")]
    for block in blocks:
        text = LOCAL.sub(url.removesuffix("/0"), block.text)
        if ".get()" in text:
            parts.append(WITH_WORKER)
        if name := FILE.match(block.text):
            path = folder / name[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            module = name[1].removesuffix(".py").replace("/", ".")
            parts.append(f"globals().update(vars(importlib.import_module({module!r})))")
        else:
            padded = "\n" * (block.line - 1) + text
            parts.append(f"exec(compile({padded!r}, {page!r}, 'exec'))")
    return "\n".join(parts)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_example_is_left_out_in_silence(page: Path) -> None:
    """A block in a language that nobody runs here, or code that hides in a block without one, would be."""
    source = page.read_text(encoding="utf-8")
    found = list(FENCE.finditer(source))
    assert len(re.findall(r"^ *```", source, re.MULTILINE)) == 2 * len(found)
    assert {match["language"] for match in found} <= READ_ONLY | {"python", "console", "sh"}
    for match in found:
        if match["language"] == "":
            assert not re.search(r"^ *(\$ |import |from \w+ import |@\w+\.task)", match["text"], re.MULTILINE), match[0]


@pytest.mark.parametrize("page", [page for page in PAGES if any(examples(page, "python"))], ids=name_of)
def test_the_python_of_a_page_runs(page: Path, redis_url: str, tmp_path: Path) -> None:
    program = script(list(examples(page, "python")), tmp_path, redis_url)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "REDIS_URL": redis_url}
    command = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def commands(block: Example) -> Iterator[list[str]]:
    """The command lines of a block: continued lines joined, prompts, comments and output left out."""
    text = block.text.replace("\\\n", " ")
    lines = text.splitlines()
    prompted = [line[2:] for line in lines if line.startswith("$ ")]
    for line in prompted or lines:
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"\w+=\S*", words[0]):
            words.pop(0)
        if words and words[0] == "for":
            words = words[words.index("do") + 1 : words.index("done")]
            words[-1] = words[-1].removesuffix(";")
        if words:
            yield words


@pytest.mark.parametrize("page", [page for page in PAGES if any(examples(page, "console", "sh"))], ids=name_of)
def test_the_commands_of_a_page_exist(page: Path) -> None:
    """Each ``celery`` command takes the words that the page gives it; what the others name exists."""
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for block in examples(page, "console", "sh"):
        for program, *words in commands(block):
            if program == "celery":
                parse(celery, words, block)
            elif program == "make":
                assert words[0] in targets, f"{block.place}: no target {words[0]}"
            elif program == "pip":
                assert words[0] == "install"
                for name, _, extras in (word.removesuffix("]").partition("[") for word in words[1:]):
                    known = metadata.metadata(name).get_all("Provides-Extra") or []
                    assert name.startswith("celery-toolkit-"), block.place
                    assert set(filter(None, extras.split(","))) <= set(known), f"{block.place}: {known}"
            else:
                assert (program, words[0]) == ("python", "-m"), f"{block.place}: nobody tries {program}"
                assert importlib.util.find_spec(words[1]), f"{block.place}: no module {words[1]}"


def parse(command: click.Command, words: list[str], block: Example) -> None:
    """Parse a command line down to its last subcommand, without running anything."""
    if isinstance(command, click.Group):
        rest = list(words)
        while rest and rest[0].startswith("-"):
            takes = next(option for option in command.params if rest[0] in option.opts)
            del rest[: 1 if takes.is_flag else 2]  # type: ignore[attr-defined]  # an option, by its dash
        found = command.commands.get(rest[0]) if rest else None
        assert found, f"{block.place}: {words} names no subcommand of {sorted(command.commands)}"
        parse(found, rest[1:], block)
    else:
        try:
            command.make_context(command.name, words, obj=SimpleNamespace(app=Celery("page", set_as_current=False)))
        except click.UsageError as error:
            pytest.fail(f"{block.place}: {words}: {error.format_message()}")
