"""The proxy does to a real client what it says, and leaves a real server as it says."""

from __future__ import annotations

import socket
import threading
import time
from urllib.parse import urlsplit

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from celery_toolkit_testkit import eventually


def port_of(proxy):
    return urlsplit(proxy.url).port


@pytest.fixture
def proxy(tcp_proxy):
    return tcp_proxy()


@pytest.fixture
def through(proxy):
    """A client that goes through the proxy, does not retry, and has its connection already."""
    with redis.Redis.from_url(proxy.url, socket_timeout=30, retry=Retry(NoBackoff(), 0)) as client:
        client.ping()
        yield client


def test_values_pass_unchanged_in_both_directions(through, redis_client):
    value = bytes(range(256)) * 8192
    through.set("key", value)
    assert redis_client.get("key") == value
    assert through.get("key") == value


def test_latency_is_added_each_way(proxy, through):
    proxy.latency = 0.05
    start = time.monotonic()
    for _ in range(3):
        through.ping()
    assert time.monotonic() - start >= 3 * 2 * 0.05


def test_the_replies_to_a_pipeline_do_not_wait_for_one_another(through):
    """Nagle's algorithm against delayed acknowledgement: 40 ms for each pipeline, however fast the line."""
    spans = []
    for _ in range(20):
        start = time.monotonic()
        with through.pipeline(transaction=True) as pipe:
            pipe.set("a", 1).set("b", 2).set("c", 3).execute()
        spans.append(time.monotonic() - start)
    assert min(spans) < 0.03


def test_a_pipeline_waits_and_counts_once(proxy, through):
    before = proxy.round_trips
    with through.pipeline() as pipe:
        for number in range(50):
            pipe.set(f"key-{number}", number)
        pipe.execute()
    assert proxy.round_trips - before == 1
    assert proxy.commands["SET"] == 50
    through.get("key-1")
    through.get("key-2")
    assert proxy.round_trips - before == 3


def test_cut_resets_and_a_new_connection_is_welcome(proxy, through):
    with socket.create_connection(("127.0.0.1", port_of(proxy)), timeout=30) as plain:
        plain.sendall(b"PING\r\n")
        assert plain.recv(100) == b"+PONG\r\n"
        assert proxy.cut() == 2
        with pytest.raises(ConnectionResetError):
            plain.recv(100)
    assert through.ping()
    assert proxy.connections == 3


def test_a_blocked_client_sees_the_cut(proxy, through):
    caught = []

    def block():
        try:
            through.blpop("nothing", timeout=60)
        except redis.ConnectionError as error:
            caught.append(error)

    thread = threading.Thread(target=block)
    thread.start()
    eventually(lambda: proxy.commands["BLPOP"])
    proxy.cut()
    thread.join(30)
    assert caught


def test_a_lost_reply_leaves_the_command_done(proxy, through, redis_client):
    proxy.lose_reply("INCRBY", nth=2)
    assert through.incr("n") == 1
    through.set("other", 1)
    with pytest.raises(redis.ConnectionError):
        through.incr("n")
    assert not proxy.fault_pending
    assert redis_client.get("n") == b"2"
    assert through.incr("n") == 3


def test_a_lost_reply_of_a_transaction_leaves_it_done(proxy, through, redis_client):
    proxy.lose_reply("EXEC")
    with pytest.raises(redis.ConnectionError), through.pipeline(transaction=True) as pipe:
        pipe.set("a", 1).set("b", 2).execute()
    assert redis_client.mget("a", "b") == [b"1", b"2"]


def test_a_lost_command_never_reaches_the_server(proxy, through, redis_client):
    proxy.lose_command("INCRBY")
    with pytest.raises(redis.ConnectionError):
        through.incr("n")
    assert redis_client.get("n") is None
    assert through.incr("n") == 1


def test_commands_before_a_lost_one_are_done(proxy, through, redis_client):
    proxy.lose_command("DEL")
    with pytest.raises(redis.ConnectionError), through.pipeline(transaction=False) as pipe:
        pipe.set("a", 1).delete("b").execute()
    assert eventually(lambda: redis_client.get("a")) == b"1"


def test_a_request_torn_in_the_middle_is_not_done(proxy, through, redis_client):
    proxy.cut_after_bytes(20)
    with pytest.raises(redis.ConnectionError):
        through.set("key", "x" * 1000)
    assert not proxy.fault_pending
    assert redis_client.get("key") is None
    assert through.ping()


def test_refusing_turns_new_connections_away_only(proxy, through):
    with proxy.refusing():
        assert through.ping()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port_of(proxy)), timeout=30)
    socket.create_connection(("127.0.0.1", port_of(proxy)), timeout=30).close()


def test_silence_is_a_timeout_and_ends_with_delivery(proxy, redis_client):
    with redis.Redis.from_url(proxy.url, socket_timeout=0.2, retry=Retry(NoBackoff(), 0)) as client:
        client.ping()
        with proxy.silent():
            with pytest.raises(redis.TimeoutError):
                client.set("key", 1)
            assert redis_client.get("key") is None
        assert eventually(lambda: redis_client.get("key")) == b"1"


def test_the_end_of_the_server_is_passed_on(tcp_proxy, through, redis_server):
    redis_server.kill()
    with pytest.raises(redis.ConnectionError):
        through.ping()


def test_a_url_keeps_its_user_path_and_query(tcp_proxy):
    proxy = tcp_proxy("redis://me:secret@127.0.0.1:1/3?health_check_interval=5")
    assert proxy.url == f"redis://me:secret@127.0.0.1:{port_of(proxy)}/3?health_check_interval=5"
