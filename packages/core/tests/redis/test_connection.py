"""Clients against real servers: dead, frozen, full, evicting, behind TLS, sentinels, ACLs, and in forked processes."""

from __future__ import annotations

import logging
import os
import subprocess
import threading
import traceback

import pytest
import redis

from celery_toolkit_core.connection import connect, explain, ping, server_name, warn_if_evicting
from celery_toolkit_core.errors import InvalidParameter, RedisFull, RedisUnavailable
from celery_toolkit_core.local_server import LocalServer, ServerFailed
from celery_toolkit_core.scripts import Scripts
from celery_toolkit_testkit import TcpProxy, eventually, frozen
from celery_toolkit_testkit.certificates import Authority, OpensslNotFound, tls_config
from celery_toolkit_testkit.plugin import missing

CANARY = "".join(["can", "ary"])  # not as one word, which the source lines in a traceback would show


def dead_url(password=""):
    """A URL where nothing listens: of a server that has just been ended."""
    with LocalServer() as server:
        port = server.port
    return f"redis://:{password}@127.0.0.1:{port}/0"


def says_unavailable(call):
    """The error of a dead server, in one line."""
    with pytest.raises(RedisUnavailable) as caught:
        call()
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_dead_server_is_one_line_with_its_name_and_without_its_password():
    client = connect(dead_url(CANARY))
    error = says_unavailable(lambda: ping(client))
    assert server_name(client) in str(error)
    assert error.server == server_name(client)
    assert CANARY not in "".join(traceback.format_exception(error))


def test_a_script_on_a_dead_server_says_the_same():
    scripts = Scripts(connect(dead_url()), "celery_toolkit_core")
    assert "cannot be reached" in str(says_unavailable(lambda: scripts.run("lease_inspect", ["{x}:k"])))


def test_a_frozen_server_is_an_error_after_one_timeout():
    """Tries are counted rather than seconds: redis-py alone would time out four times or more."""
    with LocalServer() as server, TcpProxy(server.url) as proxy:
        client = connect(proxy.url, timeout=0.5)
        ping(client)
        asked, connected = proxy.commands["PING"], proxy.connections
        with frozen(server.pid):
            says_unavailable(lambda: ping(client))
            assert (proxy.commands["PING"], proxy.connections) == (asked + 1, connected)
            says_unavailable(lambda: ping(connect(proxy.url, timeout=0.5)))
            assert proxy.connections == connected + 1
        eventually(lambda: client.ping())


def test_dead_sentinels_and_cluster_nodes_are_one_line_too():
    dead = dead_url().rpartition("@")[2].removesuffix("/0")
    says_unavailable(lambda: ping(connect(f"sentinel://:{CANARY}@{dead};sentinel://{dead}/0?master_name=mine")))
    error = says_unavailable(lambda: connect(f"redis+cluster://:{CANARY}@{dead};{dead}"))
    assert CANARY not in "".join(traceback.format_exception(error))


def test_silent_sentinels_share_one_timeout():
    with LocalServer() as server, TcpProxy(server.url) as one, TcpProxy(server.url) as other:
        urls = [f"sentinel://{proxy.url.removeprefix('redis://').removesuffix('/0')}" for proxy in (one, other)]
        client = connect(";".join(urls) + "?master_name=mine", timeout=0.5)
        with frozen(server.pid):
            says_unavailable(lambda: ping(client))
        assert (one.connections, other.connections) == (1, 1)


def test_a_connection_that_the_server_cut_is_made_again_unnoticed():
    with LocalServer() as server:
        client = connect(server.url)
        ping(client)
        with redis.Redis.from_url(server.url) as other:
            other.client_kill_filter(_type="normal", skipme=True)
        ping(client)
        server.kill()
        server.start()
        ping(client)


@pytest.mark.not_on("cluster", reason="the proxy follows one server")
def test_a_lost_reply_is_asked_for_once_more(redis_server, redis_url):
    with TcpProxy(redis_server.url) as proxy:
        client = connect(proxy.url)
        ping(client)
        proxy.lose_reply("PING")
        ping(client)
        assert not proxy.fault_pending
        assert proxy.commands["PING"] == 3


def test_urls_choose_the_database_and_the_socket():
    with LocalServer(unix_socket=True) as server:
        connect(f"{server.socket_url}?db=3").set("k", "three")
        path = server.socket_url.removeprefix("unix://")
        assert connect(f"redis+socket://{path}?virtual_host=3").get("k") == b"three"
        assert connect(f"redis://127.0.0.1:{server.port}/3").get("k") == b"three"
        assert connect(f"redis://127.0.0.1:{server.port}").get("k") is None


def test_a_wrong_password_is_told_apart_from_a_dead_server():
    with LocalServer(config={"requirepass": "right"}) as server:
        ping(connect(f"redis://:right@127.0.0.1:{server.port}/0"))
        with pytest.raises(RedisUnavailable, match="refused the user or password") as caught:
            ping(connect(f"redis://:{CANARY}@127.0.0.1:{server.port}/0"))
        assert CANARY not in "".join(traceback.format_exception(caught.value))
        with pytest.raises(RedisUnavailable, match="refused the user or password"):
            ping(connect(server.url))


def test_a_user_of_an_acl_is_taken_from_the_url():
    with LocalServer(config={"user": ["limited", "on", ">pw", "~mine:*", "+get", "+set", "+ping"]}) as server:
        client = connect(f"redis://limited:pw@127.0.0.1:{server.port}/0")
        ping(client)
        client.set("mine:k", "v")
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.get("other")


def test_a_full_server_is_told_apart():
    with LocalServer(config={"maxmemory": 1, "maxmemory-policy": "noeviction"}) as server:
        client = connect(server.url)
        with pytest.raises(redis.exceptions.ResponseError) as caught:
            client.set("k", "v")
        assert type(explain(caught.value, client)) is RedisFull


@pytest.mark.parametrize(
    ("config", "warned"),
    [
        ({"maxmemory": "50mb", "maxmemory-policy": "allkeys-lru"}, True),
        ({"maxmemory": "50mb", "maxmemory-policy": "volatile-ttl"}, True),
        ({"maxmemory": "50mb", "maxmemory-policy": "noeviction"}, False),
        ({"maxmemory-policy": "allkeys-lru"}, False),
    ],
)
def test_a_server_that_may_evict_is_warned_about(config, warned, caplog):
    with LocalServer(config=config) as server:
        assert warn_if_evicting(connect(server.url), logging.getLogger("x")) is warned
    assert [record.policy for record in caplog.records] == ([config["maxmemory-policy"]] if warned else [])


def test_a_server_that_does_not_let_us_look_is_not_warned_about(caplog):
    with LocalServer(config={"user": ["default", "on", "nopass", "~*", "+@all", "-info"]}) as server:
        assert warn_if_evicting(connect(server.url), logging.getLogger("x")) is False
    assert warn_if_evicting(connect(dead_url()), logging.getLogger("x")) is False
    assert not caplog.records


@pytest.mark.not_on("cluster", reason="its commands name no key")
def test_no_socket_is_shared_over_a_fork(redis_url):
    client = connect(redis_url)
    ping(client)
    parent_id = client.client_id()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.write(writer, str(client.client_id()).encode())
            for _ in range(200):
                client.echo("child")
            status = 0
        finally:
            os._exit(status)
    for number in range(200):
        assert client.echo(f"parent {number}") == f"parent {number}".encode()
    os.close(writer)
    with os.fdopen(reader) as stream:
        assert int(stream.read()) != parent_id
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.not_on("cluster", reason="its commands name no key")
def test_threads_share_a_client(redis_url):
    client = connect(redis_url)
    wrong = []

    def echo(number):
        for _ in range(50):
            if client.echo(str(number)) != str(number).encode():
                wrong.append(number)

    threads = [threading.Thread(target=echo, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    assert not any(thread.is_alive() for thread in threads)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A CA; in its folder is another, which signs nothing."""
    folder = tmp_path_factory.mktemp("tls")
    try:
        Authority(folder, "other-ca")
        return Authority(folder)
    except OpensslNotFound as error:
        missing(str(error))


@pytest.fixture(scope="module")
def certificates(authority):
    return authority.certificate.parent


@pytest.fixture(scope="module")
def tls_server(authority):
    """With a certificate for localhost alone."""
    config = tls_config(authority.issue(["DNS:localhost"]), authority)
    server = LocalServer(config=config)
    try:
        server.start()
    except ServerFailed as error:
        # A server from a wheel is built without TLS, and says so in one of two ways.
        if "TLS" not in error.log and "Bad directive" not in error.log:
            raise
        missing(f"{server.program} is built without TLS")
    with server:
        yield server


def test_tls_with_the_right_ca_and_name(tls_server, certificates):
    ping(connect(f"rediss://localhost:{tls_server.port}/0?ssl_ca_certs={certificates / 'ca.pem'}"))
    ping(connect(f"redis://localhost:{tls_server.port}/0", ssl_ca_certs=str(certificates / "ca.pem")))


@pytest.mark.parametrize("query", ["ssl_ca_certs={folder}/other-ca.pem", "", "ssl_cert_reqs=required"])
def test_tls_fails_closed_on_a_ca_that_did_not_sign(tls_server, certificates, query):
    with pytest.raises(RedisUnavailable, match="cannot be reached"):
        ping(connect(f"rediss://localhost:{tls_server.port}/0?{query.format(folder=certificates)}"))


def test_tls_fails_closed_on_another_host_name(tls_server, certificates):
    with pytest.raises(RedisUnavailable, match="cannot be reached"):
        ping(connect(f"rediss://127.0.0.1:{tls_server.port}/0?ssl_ca_certs={certificates / 'ca.pem'}"))


def test_tls_without_verification_only_when_asked(tls_server):
    ping(connect(f"rediss://127.0.0.1:{tls_server.port}/0?ssl_cert_reqs=CERT_NONE"))


def test_a_server_without_tls_is_an_error_for_a_tls_url(redis_server):
    with pytest.raises(RedisUnavailable):
        ping(connect(f"rediss://127.0.0.1:{redis_server.port}/0?ssl_cert_reqs=none", timeout=0.5))


@pytest.fixture
def sentinel_port(redis_server, tmp_path):
    """A sentinel that watches the private server under the name "mine"."""
    with LocalServer() as free:
        port = free.port
    conf = tmp_path / "sentinel.conf"
    conf.write_text(f"port {port}\nbind 127.0.0.1\nsentinel monitor mine 127.0.0.1 {redis_server.port} 1\n")
    process = subprocess.Popen([redis_server.program, str(conf), "--sentinel"], stdout=subprocess.DEVNULL)
    try:
        with redis.Redis(port=port) as client:
            eventually(lambda: _answers(client))
        yield port
    finally:
        process.kill()
        process.wait()


def _answers(client):
    try:
        return client.ping()
    except redis.exceptions.ConnectionError:
        return False


@pytest.mark.not_on("cluster", reason="has databases 0 only")
def test_the_master_is_found_through_its_sentinels(redis_server, redis_url, sentinel_port):
    dead = dead_url().rpartition("@")[2].removesuffix("/0")
    client = connect(f"sentinel://{dead};sentinel://127.0.0.1:{sentinel_port}/2?master_name=mine")
    client.set("k", "v")
    assert connect(redis_server.url.removesuffix("/0") + "/2").get("k") == b"v"
    with pytest.raises(RedisUnavailable, match="check that they run and that master_name fits"):
        ping(connect(f"sentinel://127.0.0.1:{sentinel_port}/2", master_name="theirs"))


def test_a_cluster_takes_our_scripts():
    with LocalServer(config={"cluster-enabled": "yes"}) as server:
        with redis.Redis(port=server.port) as node:
            node.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            eventually(lambda: node.execute_command("CLUSTER INFO")["cluster_state"] == "ok")
        client = connect(f"redis+cluster://127.0.0.1:{server.port}")
        ping(client)
        assert str(server.port) in server_name(client)
        assert warn_if_evicting(client, logging.getLogger("x")) is False
        assert Scripts(client, "celery_toolkit_core").run("lease_inspect", ["{x}:k", "{x}:f"]) == [0]
        with pytest.raises(InvalidParameter, match="decode_responses"):
            connect(redis.RedisCluster(host="127.0.0.1", port=server.port, decode_responses=True))
