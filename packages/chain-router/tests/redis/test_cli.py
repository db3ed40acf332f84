"""The command line, run as ``celery -A app chain-router ...``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from xml.etree import ElementTree

import pytest
from celery.bin.celery import celery
from click.testing import CliRunner, Result

from celery_chain_router.membership import Member, Membership
from celery_chain_router.traffic import Traffic
from celery_toolkit_core.keys import KeySpace

APP = """
import os
from celery import Celery
from celery_chain_router import ChainRouter
app = Celery("cli", broker=os.environ["URL"])
app.conf.task_routes = ChainRouter() if os.environ.get("ROUTER", "1") == "1" else None
"""


@pytest.fixture
def run(redis_url, tmp_path, monkeypatch):
    """Runs a command in this process; a start of ``celery`` for each would take a second."""
    (tmp_path / "cli_app.py").write_text(APP)
    monkeypatch.syspath_prepend(tmp_path)

    def run(*arguments: str, app: bool = True, **environment: str) -> Result:
        for name, value in {"URL": redis_url, "ROUTER": "1", **environment}.items():
            monkeypatch.setenv(name, value)
        sys.modules.pop("cli_app", None)
        named = ["-A", "cli_app"] if app else []
        return CliRunner().invoke(celery, [*named, "chain-router", *arguments], prog_name="celery")

    yield run
    sys.modules.pop("cli_app", None)


@pytest.fixture
def members(redis_client) -> Membership:
    members = Membership(redis_client, KeySpace("chain-router", "main"))
    for name in ("w1", "w2", "w3"):
        members.join([name], f"token of {name}", Member(name, "up", 1.0, f"{name}@h (pid 1)").record())
    members.leave("w3", "token of w3")
    traffic = Traffic(120.0, 1.5, (("00", "c1", 90.0, 0.0), ("01", "c\x1b2", 30.0, 0.25)))
    members.join(["w1"], "token of w1", members.view().members["w1"].record(), traffic=traffic.record())
    more = Traffic(60.0, 0.0, (("02", "c3", 60.0, 0.0),))
    members.join(["w2"], "token of w2", members.view().members["w2"].record(), traffic=more.record())
    return members


def test_workers_are_listed_with_state_and_share(run, members):
    done = run("workers", "--json")
    assert done.exit_code == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert {name: row["state"] for name, row in rows.items()} == {"w1": "up", "w2": "up", "w3": "gone"}
    assert rows["w1"]["share"] + rows["w2"]["share"] == pytest.approx(1, abs=0.001)
    assert rows["w3"]["share"] == 0
    assert rows["w1"]["holder"] == "w1@h (pid 1)"
    assert [rows[name]["per_minute"] for name in ("w1", "w2", "w3")] == [120, 60, None]
    assert [rows[name]["other_view"] for name in ("w1", "w2", "w3")] == [1.5, 0, None]


def test_the_hottest_keys_of_all_workers_are_listed(run, members):
    rows = json.loads(run("top-keys", "--json").stdout)
    assert [(row["key"], row["worker"], row["per_minute"]) for row in rows] == [
        ("c1", "w1", 90),
        ("c3", "w2", 60),
        ("c\x1b2", "w1", 30),
    ]
    assert [row["key"] for row in json.loads(run("top-keys", "--limit", "1", "--json").stdout)] == ["c1"]
    assert [row["key"] for row in json.loads(run("top-keys", "--worker", "w2", "--json").stdout)] == ["c3"]
    table = run("top-keys").stdout
    assert "c1" in table
    assert "\x1b" not in table


def test_a_split_view_is_shown(run, members):
    assert json.loads(run("ring", "--json").stdout)["other_view"] == 1.5
    assert "other_view" in run("ring").stdout


def test_every_command_speaks_json(run, members):
    for arguments in (["workers"], ["ring"], ["where", "c1"], ["plan", "--add", "w4"], ["top-keys"], ["drain", "w2"]):
        json.loads(run(*arguments, "--json").stdout)
    assert "w1@h (pid 1)" in run("workers").stdout


def test_celery_finds_the_command(members, redis_url, tmp_path):
    (tmp_path / "cli_app.py").write_text(APP)
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "cli_app", "chain-router", "workers"],
        cwd=tmp_path,
        env={**os.environ, "URL": redis_url},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "w1@h (pid 1)" in done.stdout


def test_where_and_plan_and_drain(run, members):
    found = json.loads(run("where", "c1", "--json").stdout)
    assert {found["worker"], found["then"]} == {"w1", "w2"}
    planned = json.loads(run("plan", "--add", "w4=2", "--remove", "w2", "--json").stdout)
    assert 0.4 < planned["moved"] < 1
    assert {move["to"] for move in planned["moves"]} == {"w1", "w4"}
    assert "of the keys would move" in run("plan", "--add", "w4").stdout
    assert run("drain", "w1").exit_code == 0
    assert members.view().members["w1"].state == "draining"
    assert json.loads(run("where", "c1", "--json").stdout)["worker"] == "w2"


def test_the_ring_is_drawn(run, members, tmp_path):
    done = run("ring", "--plot", str(tmp_path / "ring.svg"), "--json")
    assert set(json.loads(done.stdout)["shares"]) == {"w1", "w2"}
    picture = ElementTree.parse(tmp_path / "ring.svg").getroot()
    assert len(picture.findall("{*}path")) > 100
    assert {"w1", "w2", "120"} <= {text.text for text in picture.findall("{*}text")}
    # Complete in itself: nothing is fetched from elsewhere.
    assert "href" not in (tmp_path / "ring.svg").read_text()


def test_mistakes_are_one_line(run, members):
    for arguments, words in (
        (["drain", "nobody"], "no living worker has the name 'nobody'"),
        (["plan", "--remove", "nobody"], "is not on the ring"),
        (["plan", "--add", "w4=0"], "weight"),
        (["where", "x", "--int"], "no whole number"),
        (["ring", "--plot", "/no/such/folder/x.svg"], "No such file"),
    ):
        done = run(*arguments)
        assert done.exit_code != 0
        assert words in done.stderr
        assert "Traceback" not in done.stderr


def test_without_application_router_or_server_it_says_so(run):
    assert "no app given, use -A" in run("workers", app=False).stderr
    assert "no ChainRouter in task_routes" in run("workers", ROUTER="0").stderr
    dead = run("workers", URL="redis://:canary@127.0.0.1:1/0")
    assert dead.exit_code == 1
    assert "127.0.0.1:1" in dead.stderr
    assert "canary" not in dead.stderr + dead.stdout
