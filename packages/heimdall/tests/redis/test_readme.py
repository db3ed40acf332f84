"""The examples of the README and of the docs page run as they stand there, against a private server."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
from celery import Celery

import celery_heimdall
from celery_heimdall import HeimdallTask
from celery_heimdall.options import DICT_KEYS
from celery_heimdall.settings import HeimdallSettings

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT.parents[1] / "docs" / "heimdall.md"]


@pytest.mark.parametrize("page", [page for page in PAGES if page.exists()], ids=lambda page: page.name)
def test_the_examples_run(page, redis_url, monkeypatch):
    monkeypatch.setenv("CELERY_BROKER_URL", "memory://")
    text = page.read_text()
    names: dict[str, object] = {"__name__": "shop"}
    for kind, block in re.findall(r"^```(python|diff)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        # Of a change, what it comes to.
        after = re.sub(r"^-.*\n|^[+ ]", "", block, flags=re.MULTILINE) if kind == "diff" else block
        exec(compile(after.replace("redis://localhost", redis_url), page.name, "exec"), names)
    app = names["app"]
    assert isinstance(app, Celery)
    app.finalize()
    ours = [task for task in app.tasks.values() if isinstance(task, HeimdallTask)]
    assert len(ours) >= 3
    app.close()


def test_each_name_that_a_user_may_write_stands_in_the_readme():
    options = [
        each.name for option in ("Unique", "RateLimit", "Concurrency") for each in fields(vars(celery_heimdall)[option])
    ]
    settings = [f"heimdall_{each.name}" for each in fields(HeimdallSettings)]
    on_the_task = ["only_after", "setup_redis", "heimdall_config"]
    of_the_module = celery_heimdall.task.__all__
    words = set(re.findall(r"\w+", (ROOT / "README.md").read_text()))
    wanted = {*celery_heimdall.__all__, *DICT_KEYS, *options, *settings, *on_the_task, *of_the_module}
    assert wanted - words == set()
