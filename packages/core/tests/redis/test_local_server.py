"""Real servers: private, found in the promised order, and never left behind."""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from celery_toolkit_core import local_server
from celery_toolkit_core.bound_process import end_bound, start_bound
from celery_toolkit_core.errors import InvalidParameter, RedisUnavailable
from celery_toolkit_core.local_server import LocalServer, ServerFailed, discover, find_program, find_wheel_program
from celery_toolkit_testkit import eventually, is_alive

CANARY = "sesame-4711"


def ask(url):
    return redis.Redis.from_url(url, socket_timeout=30)


@pytest.fixture(params=[find_program, find_wheel_program], ids=["found", "wheel"])
def program(request):
    return request.param()


def test_a_server_is_private_empty_and_leaves_nothing(program):
    with LocalServer(program) as server, ask(server.url) as client:
        assert client.info("server")["process_id"] == server.pid
        assert client.dbsize() == 0
        assert client.config_get("save")["save"] == ""
        assert client.config_get("bind")["bind"] == "127.0.0.1"
        folder, pid = Path(client.config_get("dir")["dir"]), server.pid
        client.set("key", "value")
        client.save()
        assert list(folder.glob("*.rdb"))
    assert not folder.exists()
    assert not is_alive(pid)
    server.stop()


def test_a_socket_file_is_listened_on_as_well(program):
    with LocalServer(program, unix_socket=True) as server, ask(server.socket_url) as client:
        assert client.info("server")["process_id"] == server.pid


def test_config_is_passed_on():
    with LocalServer(config={"maxmemory": "5mb", "save": ["900", "1"]}) as server, ask(server.url) as client:
        assert client.config_get("maxmemory")["maxmemory"] == str(5 * 1024 * 1024)
        assert client.config_get("save")["save"] == "900 1"


def test_a_killed_server_comes_back_empty_on_its_port(program):
    with LocalServer(program) as server, ask(server.url) as client:
        port = server.port
        client.set("key", "value")
        server.kill()
        with pytest.raises(redis.ConnectionError):
            client.get("key")
        server.start()
        assert server.port == port
        assert client.get("key") is None


def test_a_server_that_ended_by_itself_is_started_again():
    with LocalServer() as server, ask(server.url) as client:
        client.shutdown(nosave=True)
        # A process may be dead to all others a moment before its parent can know.
        eventually(lambda: server._process.poll() is not None)
        server.start()
        assert client.ping()


def test_many_started_at_once_do_not_meet(program):
    """The launcher inside the wheel races; ours lets the server itself find out whether a port is free."""
    for _ in range(5):
        with ThreadPoolExecutor(4) as threads:
            servers = [LocalServer(program) for _ in range(4)]
            list(threads.map(LocalServer.start, servers))
        for server in servers:
            with ask(server.url) as client:
                assert client.info("server")["process_id"] == server.pid
        assert len({server.port for server in servers}) == 4
        for server in servers:
            server.stop()


def test_a_taken_port_is_left_and_another_is_drawn(program, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken, LocalServer(program) as free:
        drawn = [taken.getsockname()[1], free.port, 21_000]
        monkeypatch.setattr(local_server.secrets, "randbelow", lambda _: drawn.pop(0) if drawn else 99)
        monkeypatch.setattr(local_server, "_PORTS", range(65536))
        free.kill()
        free.start()
        with LocalServer(program) as server, ask(server.url) as client:
            assert client.info("server")["process_id"] == server.pid
            assert server.port not in (taken.getsockname()[1], free.port)


def test_a_port_that_was_asked_for_and_is_taken_is_an_error(redis_server):
    with pytest.raises(ServerFailed, match="port taken"):
        LocalServer(port=redis_server.port).start()


def test_a_server_that_refuses_its_config_says_why():
    server = LocalServer(config={"no-such-directive": 1})
    with pytest.raises(ServerFailed, match=r"ended at once.*no-such-directive") as caught:
        server.start()
    assert "no-such-directive" in caught.value.log
    assert "\n" not in str(caught.value)


def test_a_program_that_is_none_says_so():
    with pytest.raises(ServerFailed, match="/no/such/program"):
        LocalServer("/no/such/program").start()


def test_a_forgotten_server_ends_with_its_object():
    server = LocalServer()
    server.start()
    pid = server.pid
    del server
    gc.collect()
    assert not is_alive(pid)


def test_a_server_started_by_a_thread_outlives_that_thread():
    """The kernel's parent-death signal comes when the thread that forked ends."""
    server = LocalServer()
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    with server, ask(server.url) as client:
        for _ in range(20):
            assert client.ping()


OWNER = """
import os, sys, threading, time
from celery_toolkit_core.local_server import LocalServer
server = LocalServer()
thread = threading.Thread(target=server.start)
thread.start()
thread.join()
if sys.argv[1] == "fork":
    if os.fork() == 0:
        other = LocalServer()
        thread = threading.Thread(target=other.start)
        thread.start()
        thread.join()
        sys.exit(0 if other.pid != server.pid else 1)
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
    os.kill(server.pid, 0)
print(server.pid, flush=True)
time.sleep(600)
"""


def owner(what):
    def heed_interrupts():
        # Ignored where the tests themselves run in the background of a shell.
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    command = [sys.executable, "-c", OWNER, what]
    return subprocess.Popen(command, stdout=subprocess.PIPE, preexec_fn=heed_interrupts)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_server_dies_with_its_parent(number):
    with owner("plain") as process:
        pid = int(process.stdout.readline())
        assert is_alive(pid)
        process.send_signal(number)
    eventually(lambda: not is_alive(pid))


def test_a_fork_neither_ends_the_server_nor_breaks_its_own():
    with owner("fork") as process:
        pid = int(process.stdout.readline())
        assert is_alive(pid)
        process.kill()
    eventually(lambda: not is_alive(pid))


def test_a_bound_process_gets_the_usual_signals():
    """Python ignores SIGPIPE; what it starts must not."""
    process = start_bound(["/bin/sh", "-c", "kill -PIPE $$; echo survived"], stdout=subprocess.PIPE)
    assert process.communicate(timeout=30)[0] == b""
    assert process.returncode == -signal.SIGPIPE


def test_a_process_that_does_not_listen_is_killed():
    process = start_bound(
        ["/bin/sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"], stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout.readline() == b"ready\n"
        assert end_bound(process, patience=0.2) == -signal.SIGKILL


# Where a server comes from.


def test_redis_url_is_taken_first(redis_url, monkeypatch):
    monkeypatch.setenv("REDIS_URL", redis_url)
    with discover(default_port=True) as found:
        assert (found.url, found.origin) == (redis_url, "REDIS_URL")


def test_a_dead_redis_url_is_one_clear_line(monkeypatch):
    with LocalServer() as server:
        port = server.port
    monkeypatch.setenv("REDIS_URL", f"redis://:{CANARY}@127.0.0.1:{port}/0")
    with pytest.raises(RedisUnavailable, match=f"REDIS_URL is set, but.*127.0.0.1:{port}") as caught, discover():
        pass
    assert "\n" not in str(caught.value)
    assert CANARY not in repr(caught.value)


def test_a_redis_url_that_is_none_is_named(monkeypatch):
    monkeypatch.setenv("REDIS_URL", "http://example.com")
    with pytest.raises(InvalidParameter, match="REDIS_URL"), discover():
        pass


def test_a_running_server_is_taken_only_when_wanted(redis_server, monkeypatch):
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.setattr(local_server, "_USUAL_URL", redis_server.url)
    with discover(default_port=True) as found:
        assert found.url == redis_server.url
    with discover() as found, ask(found.url) as client:
        assert found.url != redis_server.url
        assert client.info("server")["process_id"] != redis_server.pid
        pid = client.info("server")["process_id"]
    assert not is_alive(pid)


def test_a_running_server_that_wants_a_password_is_not_ours(monkeypatch):
    monkeypatch.delenv("REDIS_URL", raising=False)
    with LocalServer(config={"requirepass": CANARY}) as closed:
        monkeypatch.setattr(local_server, "_USUAL_URL", closed.url)
        with discover(default_port=True) as found:
            assert found.url != closed.url


def test_without_anything_installed_the_wheel_serves(tmp_path, monkeypatch):
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    with discover() as found, ask(found.url) as client:
        assert client.ping()
        assert str(find_wheel_program()) in found.origin
