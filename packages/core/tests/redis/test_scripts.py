"""Scripts on a real server: one round trip, reloaded by themselves, errors in house form."""

from __future__ import annotations

import sys

import pytest
import redis

from celery_toolkit_core.connection import connect
from celery_toolkit_core.errors import RedisFull, RedisUnavailable
from celery_toolkit_core.local_server import LocalServer
from celery_toolkit_core.scripts import Scripts, source

PACKAGE = "lua_package_for_redis_tests"


@pytest.fixture(autouse=True)
def package(tmp_path, monkeypatch):
    folder = tmp_path / PACKAGE
    (folder / "lua").mkdir(parents=True)
    (folder / "__init__.py").touch()
    scripts = {
        "echo": "return {KEYS[1], ARGV[1], ARGV[2]}",
        "now": "--@include celery_toolkit_core:clock\nreturn now_ms()",
        "add": "return redis.call('RPUSH', KEYS[1], ARGV[1])",
        "shrink_then_add": "redis.call('DEL', KEYS[1])\nreturn redis.call('RPUSH', KEYS[1], ARGV[1])",
        "broken": "return redis.call('INCR', KEYS[1], 'too', 'many')",
    }
    for name, text in scripts.items():
        (folder / "lua" / f"{name}.lua").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, PACKAGE, raising=False)  # of the test before
    source.cache_clear()
    yield
    source.cache_clear()


def evalshas(client):
    """How often each command was called since the last reset, without redis-py's own greetings."""
    return {
        name.removeprefix("cmdstat_"): stats["calls"]
        for name, stats in client.info("commandstats").items()
        if "eval" in name or "script" in name
    }


def test_arguments_go_and_come_as_bytes(redis_client):
    answer = Scripts(redis_client, PACKAGE).run("echo", ["{x}:k"], ["ä", 1.5])
    assert answer == [b"{x}:k", "ä".encode(), b"1.5"]


@pytest.mark.parametrize("kind", [tuple, list])
def test_other_keys_are_never_mistaken_for_those_of_the_call_before(redis_client, kind):
    scripts = Scripts(redis_client, PACKAGE)
    keys = kind(["{k}"])
    assert [scripts.run("echo", keys, ["x", n])[0] for n in "12"] == [b"{k}"] * 2
    assert scripts.run("echo", kind(["{k}:other"]), ["x", "y"])[0] == b"{k}:other"
    assert scripts.run("echo", keys, ["y", "z"]) == [b"{k}", b"y", b"z"]
    if kind is list:
        keys[0] = "{k}:changed"
        assert scripts.run("echo", keys, ["x", "y"])[0] == b"{k}:changed"


def test_the_clock_is_the_servers_in_milliseconds(redis_client):
    seconds, _ = redis_client.time()
    assert abs(Scripts(redis_client, PACKAGE).run("now", []) - 1000 * seconds) < 60_000


@pytest.mark.not_on("cluster", reason="counts at one server")
def test_one_call_is_one_round_trip_once_the_server_knows_the_script(redis_client):
    scripts = Scripts(redis_client, PACKAGE)
    scripts.run("now", [])
    redis_client.config_resetstat()
    for _ in range(10):
        scripts.run("now", [])
    assert evalshas(redis_client) == {"evalsha": 10}


def test_a_flushed_script_is_loaded_again_unnoticed(redis_client):
    scripts = Scripts(redis_client, PACKAGE)
    before = scripts.run("now", [])
    redis_client.script_flush()
    assert scripts.run("now", []) >= before


@pytest.mark.not_on("cluster", reason="redis-py pipelines no script there")
def test_a_call_can_wait_in_a_pipeline(redis_client):
    scripts = Scripts(redis_client, PACKAGE)
    pipeline = redis_client.pipeline()
    scripts.run("add", ["{x}:k"], ["a"], client=pipeline)
    scripts.run("add", ["{x}:k"], ["b"], client=pipeline)
    assert redis_client.exists("{x}:k") == 0
    assert pipeline.execute() == [1, 2]


def test_a_dead_server_is_unavailable():
    with LocalServer() as server:
        scripts = Scripts(connect(server.url), PACKAGE)
        scripts.run("now", [])
        server.kill()
        with pytest.raises(RedisUnavailable, match="cannot be reached"):
            scripts.run("now", [])
        server.start()
        assert scripts.run("now", [])


def test_a_full_server_refuses_what_adds_and_lets_through_what_begins_with_a_deletion():
    """Release, renew and settle rely on the second half."""
    with LocalServer() as server:
        client = connect(server.url)
        scripts = Scripts(client, PACKAGE)
        scripts.run("add", ["{x}:k"], ["a"])
        client.config_set("maxmemory", 1)
        with pytest.raises(RedisFull, match="out of memory; raise maxmemory") as caught:
            scripts.run("add", ["{x}:k"], ["b"])
        assert caught.value.server == f"127.0.0.1:{server.port}/0"
        assert scripts.run("shrink_then_add", ["{x}:k"], ["c"]) == 1


def test_a_mistake_in_a_script_is_not_dressed_up(redis_client):
    with pytest.raises(redis.exceptions.ResponseError, match=r"[Ww]rong number of args"):
        Scripts(redis_client, PACKAGE).run("broken", ["{x}:k"])


def test_a_flush_between_loading_and_the_second_try_is_no_error(redis_client, monkeypatch):
    """Seen with SCRIPT FLUSH in a loop: redis-py loads once, and its second try met an empty cache again."""
    load = redis_client.script_load

    def load_in_vain(text):
        digest = load(text)
        redis_client.script_flush()
        return digest

    monkeypatch.setattr(redis_client, "script_load", load_in_vain)
    assert Scripts(redis_client, PACKAGE).run("echo", ["{x}:k"], ["a", "b"]) == [b"{x}:k", b"a", b"b"]
