"""An application of ranch on the private server, and `celery ranch` for it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from celery import Celery
from celery.bin.celery import celery
from click.testing import CliRunner

from celery_ranch.application import ranch_of


def elsewhere():
    """Broker and result backend: the same server, except that Celery cannot use a cluster."""
    if os.environ.get("TOOLKIT_TEST_TOPOLOGY") == "cluster":
        return "memory://", "cache+memory://"
    return os.environ["CELERY_BROKER_URL"], os.environ["CELERY_RESULT_BACKEND"]


@pytest.fixture
def app(celery_environment, redis_url):
    broker, backend = elsewhere()
    app = Celery("submit", broker=broker, backend=backend, set_as_current=False)
    app.conf.ranch_redis_url = redis_url  # reached as the chosen topology has it, which not every broker can be
    yield app
    ranch_of(app).backlog.client.close()
    app.close()


@pytest.fixture
def claim():
    """Claims the next task of the application's only queue, as a worker does with a ticket."""

    def claim(app, *, lease=100.0, reports=()):
        backlog = ranch_of(app).backlog
        (queue,) = backlog.queues()
        return backlog.claim(queue, uuid4().hex, uuid4().hex, lease=lease, max_attempts=3, reports=reports).claimed

    return claim


@pytest.fixture
def ranch(celery_environment, redis_url, tmp_path, monkeypatch):
    """Runs `celery -A ... ranch ...` and gives what it prints, on both streams or on the one that is named."""
    broker, backend = elsewhere()
    Path(tmp_path / "cli_app.py").write_text(
        f"from celery import Celery\napp = Celery('cli', broker={broker!r}, backend={backend!r})\n"
        f"app.conf.ranch_redis_url = {redis_url!r}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    def run(*arguments, app=("-A", "cli_app"), code=0, stream="output"):
        done = CliRunner().invoke(celery, [*app, "ranch", *arguments])
        assert done.exit_code == code, done.output
        return getattr(done, stream)

    yield run
    if "cli_app" in sys.modules:
        used = sys.modules.pop("cli_app").app
        ranch_of(used).backlog.client.close()
        used.close()
