"""``celery heimdall`` as an operator runs it."""

from __future__ import annotations

import importlib
import json
import sys

import pytest
from celery.bin.celery import celery
from click.testing import CliRunner

from celery_heimdall.calls import Call
from celery_heimdall.claims import Claim
from celery_heimdall.unique import lock_of
from celery_toolkit_testkit import eventually

MODULE = """
import os
from celery import Celery
from celery_heimdall import Concurrency, HeimdallTask, RateLimit, Unique
app = Celery("operated")
app.conf.update(heimdall_redis_url=os.environ["OPERATED_REDIS"])
app.conf.heimdall_lease = float(os.environ.get("OPERATED_LEASE", 30))
options = {"unique": True, "key": "the-report", "times": 2, "per": 60}
@app.task(shared=False, base=HeimdallTask, heimdall=options, name="report")
def report(): pass
@app.task(shared=False, base=HeimdallTask, limits=[Concurrency(3, name="erp")], name="sync")
def sync(): pass
@app.task(shared=False, base=HeimdallTask, unique=Unique(key="the-report"), name="also")
def also(): pass
@app.task(shared=False, base=HeimdallTask, limits=[RateLimit("5/m", name="api", by="org")], name="asking")
def asking(org): pass
"""


@pytest.fixture
def operated(tmp_path, celery_environment, redis_url, monkeypatch):
    (tmp_path / "operated.py").write_text(MODULE)
    monkeypatch.setenv("OPERATED_REDIS", redis_url)
    monkeypatch.setenv("CELERY_BROKER_URL", "memory://")
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


def enter(task, task_id, *args):
    claim = Claim(task, Call(task, args), None, task_id, 0, f"{task_id}/1")
    return claim.enter(woken=False, queue="q", message=b"m", later=False, join=False, holder="")


def test_what_nobody_renews_any_more_is_stale(operated, monkeypatch):
    monkeypatch.setenv("OPERATED_LEASE", "0.3")
    task = importlib.import_module("operated").report
    assert json.loads(operated("locks", "--stale", "--json").stdout) == []
    enter(task, "a")
    (row,) = eventually(lambda: json.loads(operated("locks", "--stale", "--json").stdout))
    assert (row["holder"], row["stale"]) == ("a", "the worker that had it died")
    assert json.loads(operated("locks", "--json").stdout) == []
    assert "died" in operated("locks", "--stale").stdout


def test_a_key_is_shown_with_all_that_share_it_and_wait_for_it(operated):
    module = importlib.import_module("operated")
    lock_of(module.report, "the-report").reserve("a", 0, 60)
    enter(module.report, "a")
    enter(module.also, "a")
    (row,) = json.loads(operated("show", "the-report", "--json").stdout)
    assert (row["holder"], row["state"], row["tasks"]) == ("a", "running", ["also", "report"])
    assert json.loads(operated("release", "the-report", "--json").stdout) == {"released": "the-report"}


def test_parked_tasks_are_found_by_the_limit_and_by_its_part(operated):
    module = importlib.import_module("operated")
    for number in range(3):
        enter(module.sync, f"s{number}")
    for number in range(6):
        enter(module.asking, f"a{number}", "acme")
    enter(module.sync, "last")
    rows = json.loads(operated("parked", "--json").stdout)
    assert sorted((row["id"], row["task"], row["for"]) for row in rows) == [
        ("a5", "asking", "the limit api['acme']"),
        ("last", "sync", "the limit erp"),
    ]
    assert [row["id"] for row in json.loads(operated("parked", "--key", "'acme'", "--json").stdout)] == ["a5"]
    assert [row["id"] for row in json.loads(operated("parked", "--key", "erp", "--json").stdout)] == ["last"]
    assert json.loads(operated("parked", "--key", "other", "--json").stdout) == []
    found = json.loads(operated("explain", "last", "--json").stdout)
    assert (found["id"], found["reason"]) == ("last", "limit")
    assert "erp is full, 3 of 3" in operated("explain", "last").stdout


def test_the_declared_limits_are_listed(operated):
    rows = {row["limit"]: row for row in json.loads(operated("limits", "--json").stdout)}
    assert (rows["the-report"]["times"], rows["the-report"]["used"]) == (2, 0)
    assert rows["erp"]["kind"] == "slots"
    assert (rows["api"]["parted"], rows["api"]["times"]) == (True, None)
    rows = {row["limit"]: row for row in json.loads(operated("limits", "--key", "'acme'", "--json").stdout)}
    assert (rows["api"]["times"], rows["erp"]["times"]) == (5, None)
    assert "api" in operated("limits").stdout


def test_a_limit_is_changed_for_a_time_and_restored(operated):
    assert operated("set-limit", "the-report", "5/m", "--for", "10m").output == "the-report: 5/m\n"
    rows = {row["limit"]: row for row in json.loads(operated("limits", "--json").stdout)}
    assert rows["the-report"]["times"] == 5
    operated("set-limit", "the-report", "default")
    rows = {row["limit"]: row for row in json.loads(operated("limits", "--json").stdout)}
    assert rows["the-report"]["times"] == 2
    assert operated("set-limit", "the-report", "5/m", "--for", "soon").exit_code == 2
    assert "rate" in operated("set-limit", "the-report", "often").stderr


def test_a_value_that_the_kind_of_the_limit_cannot_have_is_refused(operated):
    assert "whole number" in operated("set-limit", "erp", "5/m").stderr
    assert "RateLimit" in operated("set-limit", "the-report", "5").stderr
    assert "no task here declares" in operated("set-limit", "unheard", "resumed").stderr
    assert json.loads(operated("set-limit", "erp", "2", "--for", "90s", "--json").stdout)["for"] == 90


def test_a_limit_that_nobody_declares_is_set_with_a_note(operated):
    done = operated("set-limit", "the-reprot", "5/m")
    assert done.stdout == "the-reprot: 5/m\n"
    assert "no task here declares a limit called the-reprot (did you mean 'the-report'?)" in done.stderr
    assert operated("set-limit", "the-report", "5/m").stderr == ""


def test_what_dead_workers_left_is_reaped(operated, monkeypatch):
    monkeypatch.setenv("OPERATED_LEASE", "0.3")
    assert operated("reap").output == "woken 0, back in line 0\n"
    enter(importlib.import_module("operated").sync, "a")
    found = eventually(lambda: (done := json.loads(operated("reap", "--json").stdout))["back_in_line"] and done)
    assert found["back_in_line"] == 1


def test_the_command_for_a_user_of_ones_own_is_printed(operated):
    line = operated("acl", "--user", "guard").stdout
    assert line.startswith("ACL SETUSER guard reset on >PASSWORD ~{heimdall:main}:* ")
    assert json.loads(operated("acl", "--user", "guard", "--json").stdout)["command"] == line.strip()


def test_without_an_application_it_says_so(operated):
    done = operated("locks", app=())
    assert (done.exit_code, "no app given, use -A" in done.stderr) == (1, True)


def test_a_redis_that_is_away_is_one_line(operated, monkeypatch):
    monkeypatch.setenv("OPERATED_REDIS", "redis://:canary@127.0.0.1:1/0")
    done = operated("locks")
    assert done.exit_code == 1
    assert len(done.stderr.splitlines()) == 1
    assert "canary" not in done.stderr
