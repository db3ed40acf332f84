"""``celery -A app chain-router`` in partition mode."""

from __future__ import annotations

import json
import sys

import pytest
from celery.bin.celery import celery
from click.testing import CliRunner, Result

from celery_chain_router.membership import Member, Membership
from celery_chain_router.ownership import Ownership
from celery_toolkit_core.keys import KeySpace

pytestmark = pytest.mark.not_on("cluster", "unix", "sentinel", reason="as a broker URL kombu does not know it")

APP = """
import os
from celery import Celery
from celery_chain_router import ChainRouter
app = Celery("cli", broker=os.environ["URL"])
app.conf.chain_router_discovery = os.environ.get("DISCOVERY", "1") == "1"
app.conf.task_routes = ChainRouter(mode="partition", partitions=4)
@app.task(name="work")
def work(key): ...
"""


@pytest.fixture
def run(redis_url, tmp_path, monkeypatch):
    (tmp_path / "partitions_cli_app.py").write_text(APP)
    monkeypatch.syspath_prepend(tmp_path)

    def run(*arguments: str, **environment: str) -> Result:
        for name, value in {"URL": redis_url, **environment}.items():
            monkeypatch.setenv(name, value)
        sys.modules.pop("partitions_cli_app", None)
        return CliRunner().invoke(celery, ["-A", "partitions_cli_app", "chain-router", *arguments], prog_name="celery")

    yield run
    sys.modules.pop("partitions_cli_app", None)


@pytest.fixture
def workers(redis_client):
    ownership = Ownership(Membership(redis_client, KeySpace("chain-router", "main.chain")), 4)
    for name in ("a", "b"):
        ownership.beat(name, f"token-of-{name}", Member(name, "up", 1.0, f"{name}@h (pid 1)").record())
        ownership.acquire(name, f"token-of-{name}")
    return ownership


def found(result: Result):
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_partitions_with_owner_fence_and_backlog(run, workers, redis_client):
    # "a" came first and has all four; half of them are to go to "b".
    redis_client.lpush("chain.2", "one", "two")
    redis_client.hset("chain.2.taken", mapping={"fence": 1, "last": 1, "1": "chain.2\nthree"})
    rows = found(run("partitions", "--json"))
    assert [row["queue"] for row in rows] == [f"chain.{number}" for number in range(4)]
    assert {row["owner"] for row in rows} == {"a"}
    assert sorted((row["state"], row["next"]) for row in rows) == [("moving", "b")] * 2 + [("owned", "a")] * 2
    assert len({row["fence"] for row in rows}) == 4
    assert (rows[2]["backlog"], rows[2]["unacked"]) == (2, 1)
    assert "orphaned" not in run("partitions").output
    workers.membership.leave("a", "token-of-a")
    assert {row["state"] for row in found(run("partitions", "--json"))} == {"orphaned"}


def test_before_any_worker(run):
    rows = found(run("partitions", "--json"))
    assert {(row["state"], row["owner"], row["backlog"]) for row in rows} == {("free", None, 0)}


def test_workers_where_and_drain(run, workers):
    rows = found(run("workers", "--json"))
    assert [(row["name"], row["partitions"], row["to_have"]) for row in rows] == [("a", 4, 2), ("b", 0, 2)]
    answer = found(run("where", "c1", "--json"))
    assert (answer["queue"], answer["worker"]) == (f"chain.{answer['partition']}", "a")
    assert run("drain", "a").exit_code == 0
    workers.look()
    assert [(row["state"], row["to_have"]) for row in found(run("workers", "--json"))] == [("draining", 0), ("up", 4)]


@pytest.mark.parametrize("command", [["ring"], ["plan", "--add", "c"], ["top-keys"]])
def test_what_is_of_a_ring_says_so(run, command):
    done = run(*command)
    assert done.exit_code == 1
    assert "the router is in partition mode" in done.output
    assert "Traceback" not in done.output


def test_without_shared_leases(run):
    done = run("partitions", DISCOVERY="0")
    assert done.exit_code == 1
    assert "mode='partition' needs a Redis for the leases" in done.output
