"""The examples of the README and of the documentation page run as they stand there, against a private server."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from celery import Celery

from celery_ranch.application import ranch_of

PAGES = [Path(__file__).parents[2] / "README.md", Path(__file__).parents[4] / "docs" / "ranch.md"]

pytestmark = pytest.mark.not_on("cluster", reason="the examples' broker is the same server")


@pytest.mark.parametrize("page", [page for page in PAGES if page.exists()], ids=lambda page: page.name)
def test_the_examples_run(page, celery_environment, redis_server, capsys, monkeypatch):
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    # The first block is that module; the later ones use it.
    shop = ModuleType("shop")
    monkeypatch.setitem(sys.modules, "shop", shop)
    names = vars(shop)
    try:
        for block in blocks:
            exec(compile(block.replace("redis://localhost:6379/0", redis_server.url), page.name, "exec"), names)
        assert capsys.readouterr().out
    finally:
        app = names.get("app")
        if isinstance(app, Celery):
            ranch_of(app).backlog.client.close()
            app.close()
