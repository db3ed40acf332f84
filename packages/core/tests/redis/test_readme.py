"""The README's examples run as they stand there, against a private server."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGES = [Path(__file__).parents[2] / "README.md", Path(__file__).parents[4] / "docs" / "core.md"]


@pytest.mark.parametrize("page", [page for page in PAGES if page.exists()], ids=lambda page: page.name)
def test_the_examples_run(page, redis_url, capsys):
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block.replace("redis://localhost:6379/0", redis_url), page.name, "exec"), names)
    assert capsys.readouterr().out
