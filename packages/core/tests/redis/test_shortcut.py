"""The short way to the server does what redis-py's long one does."""

from __future__ import annotations

import os

import pytest
import redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import DataError, NoScriptError

from celery_toolkit_core.connection import connect
from celery_toolkit_core.shortcut import UNHEARD, Shortcut, Words
from celery_toolkit_testkit import TcpProxy, eventually

ARGUMENTS = ["ä", b"\xff\x00", "", 7, -1.5, 10**20, "x" * 100_000]


@pytest.fixture
def plain(redis_server, redis_url):
    with redis.Redis.from_url(redis_server.url, socket_timeout=30) as client:
        yield client


def test_every_kind_of_argument_arrives_as_it_does_by_redis_py(plain):
    echo = ("EVAL", "return ARGV", 0, *ARGUMENTS)
    assert Shortcut(plain).call(*echo) == plain.execute_command(*echo)
    with pytest.raises(DataError):
        Shortcut(plain).call("ECHO", True)


def test_the_long_way_is_not_gone_where_it_is_not_needed(plain):
    def long_way(*command):
        raise AssertionError(command)

    plain._execute_command = long_way
    assert Shortcut(plain).call("ECHO", "x") == b"x"


def test_whoever_watches_redis_py_sees_our_commands(plain, monkeypatch):
    """Tracers put a function of theirs in the place of ``execute_command``, before or after our client is made."""
    seen = []
    execute = redis.Redis.execute_command

    def traced(self, *command, **options):
        seen.append(command)
        return execute(self, *command, **options)

    shortcut = Shortcut(plain)
    with monkeypatch.context() as patch:
        patch.setattr(redis.Redis, "execute_command", traced)
        shortcut.call("ECHO", "a")
    shortcut.call("ECHO", "b")
    plain.execute_command = lambda *command: seen.append(command)
    shortcut.call("ECHO", "c")
    assert seen == [("ECHO", "a"), ("ECHO", "c")]


def connections(client, name):
    return sum(each["name"] == name for each in client.client_list())


def test_a_client_with_one_connection_or_another_encoding_keeps_its_ways(redis_server, redis_url):
    with redis.Redis.from_url(redis_server.url, single_connection_client=True, client_name="single") as single:
        assert Shortcut(single).call("ECHO", "x") == b"x"
        assert connections(single, "single") == 1
    with redis.Redis.from_url(redis_server.url, encoding="latin-1") as other:
        assert Shortcut(other).call("ECHO", "ä") == b"\xe4"


def test_a_broken_connection_is_tried_once_more_and_given_back(tcp_proxy, redis_client):
    proxy = tcp_proxy()
    with connect(proxy.url, timeout=30.0, client_name="cut") as client:
        shortcut = Shortcut(client)
        shortcut.call("PING")
        proxy.cut()
        assert shortcut.call("ECHO", "x") == b"x"
        for _ in range(20):
            with pytest.raises(redis.ResponseError):
                shortcut.call("NO SUCH COMMAND")
        assert eventually(lambda: connections(redis_client, "cut") == 1)


def test_a_silent_server_is_asked_once(tcp_proxy):
    proxy = tcp_proxy()
    with connect(proxy.url, timeout=0.3) as client:
        shortcut = Shortcut(client)
        shortcut.call("PING")
        before = proxy.commands["ECHO"]
        with proxy.silent(), pytest.raises(redis.TimeoutError):
            shortcut.call("ECHO", "x")
        assert proxy.commands["ECHO"] - before <= 1
        assert eventually(lambda: shortcut.call("ECHO", "y") == b"y")


def test_words_that_are_packed_once_count_as_many_as_they_are(plain):
    sha = plain.script_load("return {#KEYS, #ARGV, KEYS[2], ARGV[3]}")
    keys, args = ("{a}", Words("{a}b", "{a}c")), (Words("x", 7), b"y", 1.5)
    assert Shortcut(plain).evalsha(sha, keys, args) == [3, 4, b"{a}b", b"y"]
    plain.execute_command = plain.execute_command  # the long way
    assert Shortcut(plain).evalsha(sha, keys, args) == [3, 4, b"{a}b", b"y"]


def test_what_the_caller_does_meanwhile_is_done_before_the_answer_is_read(plain, monkeypatch):
    shortcut, sha, done = Shortcut(plain), plain.script_load("return ARGV[1]"), []
    # The pool's connection may have to be asked twice.
    assert shortcut.evalsha(sha, [], ["a"], meanwhile=lambda: done.append("too early")) == b"a"
    connection = shortcut._kept[0].connection
    read = connection.read_response
    monkeypatch.setattr(connection, "read_response", lambda: [done.append("read"), read()][1])
    assert shortcut.evalsha(sha, [], ["b"], meanwhile=lambda: done.append("meanwhile")) == b"b"
    assert done == ["meanwhile", "read"]

    def fails():
        raise LookupError

    with pytest.raises(LookupError):
        shortcut.evalsha(sha, [], ["c"], meanwhile=fails)
    assert not shortcut._kept
    assert shortcut.evalsha(sha, [], ["d"]) == b"d"


def test_an_answer_that_came_too_late_is_nobodys(plain, monkeypatch):
    """A time limit's signal may come between the question and the answer."""
    shortcut = Shortcut(plain)
    assert shortcut.call("ECHO", "a") == b"a"
    connection = shortcut._kept[0].connection

    def interrupted():
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(connection, "read_response", interrupted)
        with pytest.raises(KeyboardInterrupt):
            shortcut.call("ECHO", "b")
    assert not shortcut._kept
    assert shortcut.call("ECHO", "c") == b"c"


@pytest.fixture
def told(plain):
    """A shortcut with a connection at hand, a script that answers what it is told, and those answers."""
    shortcut, sha, answers = (
        Shortcut(plain),
        plain.script_load("redis.call('SET', KEYS[1], ARGV[1]) return ARGV[1]"),
        [],
    )
    shortcut.call("ECHO", "x")
    return shortcut, lambda word: shortcut.tell(sha, ["told"], [word], answers.append), answers


def test_what_is_told_is_done_at_once_and_heard_with_the_next_answer(plain, told):
    shortcut, tell, answers = told
    assert tell("a")
    assert tell("b")
    assert eventually(lambda: plain.get("told") == b"b")
    assert answers == []
    assert shortcut.call("ECHO", "c") == b"c"
    assert answers == [b"a", b"b"]
    assert tell("d")
    shortcut.hear()
    assert answers == [b"a", b"b", b"d"]


def test_a_question_behind_what_was_told_is_no_second_round_trip(redis_server, redis_url):
    with TcpProxy(redis_server.url) as proxy, redis.Redis.from_url(proxy.url) as client:
        shortcut, sha = Shortcut(client), client.script_load("return ARGV[1]")
        shortcut.call("ECHO", "x")
        proxy.latency, before = 0.05, proxy.round_trips
        answers = []
        assert shortcut.tell(sha, [], ["a"], answers.append)
        assert shortcut.evalsha(sha, [], ["b"]) == b"b"
        assert proxy.round_trips == before + 1
        assert answers == [b"a"]


def test_an_error_is_an_answer(plain, told):
    shortcut, tell, answers = told
    plain.script_flush()
    assert tell("a")
    assert shortcut.call("ECHO", "c") == b"c"
    assert [type(answer) for answer in answers] == [NoScriptError]


@pytest.mark.parametrize("who", ["the next question", "hear"])
def test_whoever_told_hears_that_the_connection_is_lost(redis_server, redis_url, who):
    with TcpProxy(redis_server.url) as proxy, redis.Redis.from_url(proxy.url) as client:
        shortcut, sha, answers = Shortcut(client), client.script_load("return ARGV[1]"), []
        shortcut.call("ECHO", "x")
        with proxy.silent():
            assert shortcut.tell(sha, [], ["a"], answers.append)
            assert shortcut.tell(sha, [], ["b"], answers.append)
            proxy.cut()
        if who == "hear":
            shortcut.hear()
            assert not shortcut._kept
        else:
            assert shortcut.call("ECHO", "c") == b"c"
        assert len(answers) == 2
        assert all(isinstance(answer, RedisConnectionError) for answer in answers)


@pytest.mark.parametrize("who", ["the next question", "hear", "the next word"])
def test_whoever_told_hears_that_the_client_was_closed(plain, told, who):
    """It opens its connections again when it is used again."""
    shortcut, tell, answers = told
    assert tell("a")
    plain.close()
    if who == "hear":
        shortcut.hear()
    elif who == "the next word":
        assert not tell("b")
    else:
        assert shortcut.call("ECHO", "b") == b"b"
    assert [type(answer) for answer in answers] == [RedisConnectionError]
    assert shortcut.call("ECHO", "c") == b"c"


def test_a_health_check_is_no_answer(redis_server, redis_url, monkeypatch):
    with redis.Redis.from_url(redis_server.url, health_check_interval=1) as client:
        shortcut, sha, answers = Shortcut(client), client.script_load("return ARGV[1]"), []
        shortcut.call("ECHO", "x")
        assert shortcut.tell(sha, [], ["a"], answers.append)
        shortcut._kept[0].connection.next_health_check = 0
        assert shortcut.call("ECHO", "b") == b"b"
        assert answers == [b"a"]


def test_more_is_not_told_than_is_heard_in_one_go(told):
    shortcut, tell, answers = told
    assert all(tell(number) for number in range(UNHEARD))
    assert not tell("too much")
    shortcut.hear()
    assert len(answers) == UNHEARD


def test_who_fails_to_hear_is_nobody_elses_trouble(told):
    shortcut, tell, answers = told
    shortcut.tell("0" * 40, [], [], lambda answer: 1 / 0)
    assert tell("a")
    assert shortcut.call("ECHO", "b") == b"b"
    assert answers == [b"a"]


def test_nothing_is_told_the_long_way(plain, told):
    _, tell, answers = told
    plain.execute_command = plain.execute_command
    assert not tell("a")
    assert not Shortcut(plain.pipeline()).tell("0" * 40, [], [], answers.append)


def test_a_fork_does_not_share_the_connection_that_is_kept(plain):
    shortcut = Shortcut(plain)
    mine = shortcut.call("CLIENT", "ID")
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, b"%d" % shortcut.call("CLIENT", "ID"))
        os._exit(0)
    os.waitpid(child, 0)
    assert int(os.read(reading, 20)) != mine
    assert shortcut.call("CLIENT", "ID") == mine
    os.close(reading)
    os.close(writing)


def test_a_small_pool_gets_every_connection_back(redis_server, redis_url):
    with redis.Redis.from_url(redis_server.url, max_connections=1) as client:
        assert Shortcut(client).call("ECHO", "x") == b"x"
        assert client.ping()
