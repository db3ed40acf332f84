"""``celery heimdall`` as an operator runs it."""

from __future__ import annotations

import importlib
import json
import sys

import pytest
from celery.bin.celery import celery
from click.testing import CliRunner

MODULE = """
from celery import Celery
from celery_heimdall import Concurrency, HeimdallTask
app = Celery("operated")
options = {"unique": True, "key": "the-report", "times": 2, "per": 60}
@app.task(shared=False, base=HeimdallTask, heimdall=options, name="report")
def report(): pass
@app.task(shared=False, base=HeimdallTask, limits=[Concurrency(3, name="erp")], name="sync")
def sync(): pass
"""


@pytest.fixture
def operated(tmp_path, celery_environment, redis_url, monkeypatch):
    (tmp_path / "operated.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "operated", raising=False)

    def run(*words, app=("-A", "operated")):
        return CliRunner().invoke(celery, [*app, "heimdall", *words])

    yield run
    if module := sys.modules.pop("operated", None):
        module.app.close()


def test_a_lock_is_listed_shown_explained_and_freed(operated):
    task_id = importlib.import_module("operated").report.delay().id
    (row,) = json.loads(operated("locks", "--json").stdout)
    assert (row["key"], row["task"], row["holder"]) == ("the-report", "report", task_id)
    assert json.loads(operated("locks", "--task", "other", "--json").stdout) == []
    assert task_id in operated("show", "the-report").stdout
    assert "the-report" in operated("explain", task_id).stdout
    assert "released" in operated("release", "the-report").stdout
    again = operated("release", "the-report")
    assert (again.exit_code, again.stderr) == (1, "Error: nobody holds the key the-report\n")


def test_the_declared_limits_are_listed(operated):
    rows = {row["limit"]: row for row in json.loads(operated("limits", "--json").stdout)}
    assert (rows["h-rate:the-report"]["times"], rows["h-rate:the-report"]["used"]) == (2, 0)
    assert rows["h-rate:erp"]["kind"] == "slots"


def test_a_limit_is_changed_for_a_time_and_restored(operated):
    assert operated("set-limit", "the-report", "5/m", "--for", "10m").output == "the-report: 5/m\n"
    rows = {row["limit"]: row for row in json.loads(operated("limits", "--json").stdout)}
    assert rows["h-rate:the-report"]["times"] == 5
    operated("set-limit", "the-report", "default")
    rows = {row["limit"]: row for row in json.loads(operated("limits", "--json").stdout)}
    assert rows["h-rate:the-report"]["times"] == 2
    assert operated("set-limit", "the-report", "5/m", "--for", "soon").exit_code == 2
    assert "rate" in operated("set-limit", "the-report", "often").stderr


def test_nothing_to_reap_is_done_at_once(operated):
    assert operated("reap").output == "done\n"


def test_without_an_application_it_says_so(operated):
    done = operated("locks", app=())
    assert (done.exit_code, "no app given, use -A" in done.stderr) == (1, True)


def test_a_redis_that_is_away_is_one_line(operated, monkeypatch):
    monkeypatch.setenv("CELERY_RESULT_BACKEND", "redis://:canary@127.0.0.1:1/0")
    done = operated("locks")
    assert done.exit_code == 1
    assert len(done.stderr.splitlines()) == 1
    assert "canary" not in done.stderr
