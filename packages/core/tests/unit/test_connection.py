"""Clients from URLs and clients: what they are made of, before a word is sent."""

from __future__ import annotations

import ssl

import pytest
import redis
import redis.asyncio

from celery_toolkit_core.connection import connect, explain, server_name
from celery_toolkit_core.errors import InvalidParameter, RedisFull, RedisUnavailable


def options(client):
    return client.connection_pool.connection_kwargs


def test_every_call_has_a_timeout():
    assert options(connect("redis://h"))["socket_timeout"] == 2.0
    assert options(connect("redis://h"))["socket_connect_timeout"] == 2.0
    assert options(connect("redis://h", timeout=0.5))["socket_timeout"] == 0.5
    assert options(connect("unix:///run/r.sock", timeout=0.5))["socket_timeout"] == 0.5


def test_url_options_get_their_types_and_unknown_ones_are_celerys():
    client = connect(
        "redis://h/1?socket_timeout=3&health_check_interval=25&max_connections=7&socket_keepalive=no"
        "&visibility_timeout=60&virtual_host=9&client_name=me&master_name=mine"
    )
    known = options(client)
    assert (known["socket_timeout"], known["health_check_interval"], known["db"]) == (3.0, 25.0, 1)
    assert (known["socket_keepalive"], known["client_name"]) == (False, "me")
    assert client.connection_pool.max_connections == 7
    assert "visibility_timeout" not in known


def test_options_that_we_decide_or_that_a_url_cannot_say_are_passed_over():
    client = connect(
        "redis://h?decode_responses=True&retry=3&retry_on_timeout=True&retry_on_error=x&cache=1&host=other"
    )
    assert options(client)["host"] == "h"
    assert client.get_encoder().decode_responses is False


def test_a_credential_provider_is_made_from_its_dotted_name_as_in_kombu():
    client = connect("redis://h?credential_provider=redis.UsernamePasswordCredentialProvider")
    assert type(options(client)["credential_provider"]) is redis.UsernamePasswordCredentialProvider


def test_python_options_win_over_the_url():
    assert options(connect("redis://h?client_name=url", client_name="python"))["client_name"] == "python"


@pytest.mark.parametrize(
    ("url", "passed", "verify", "check_hostname"),
    [
        ("rediss://h", {}, None, True),
        ("rediss://h?ssl_cert_reqs=CERT_REQUIRED", {}, "required", True),
        ("rediss://h?ssl_cert_reqs=required&ssl_check_hostname=false", {}, "required", False),
        ("rediss://h?ssl_cert_reqs=CERT_NONE", {}, "none", False),
        ("rediss://h?ssl_cert_reqs=none", {}, "none", False),
        ("redis://h?ssl_cert_reqs=CERT_OPTIONAL", {}, "optional", True),
        ("redis://h", {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": "/ca.pem"}, "required", True),
    ],
)
def test_tls_as_celery_writes_it(url, passed, verify, check_hostname):
    client = connect(url, **passed)
    assert client.connection_pool.connection_class is redis.SSLConnection
    assert options(client).get("ssl_cert_reqs", "required") == (verify or "required")
    assert options(client)["ssl_check_hostname"] is check_hostname


@pytest.mark.parametrize(
    ("url", "passed", "parameter"),
    [
        ("rediss://h?ssl_cert_reqs=maybe", {}, "ssl_cert_reqs"),
        ("redis://h?socket_timeout=soon", {}, "socket_timeout"),
        ("redis://h?max_connections=many", {}, "max_connections"),
        ("redis://h?max_connections=-1", {}, "redis_url"),
        ("rediss://h?ssl_ca_cert=/ca.pem", {}, "ssl_ca_cert"),
        ("rediss://h?ssl_include_verify_flags=VERIFY_X509_STRICT", {}, "ssl_include_verify_flags"),
        ("redis://h?credential_provider=no.such.Provider", {}, "credential_provider"),
        ("redis://h?credential_provider=logging", {}, "credential_provider"),
        ("redis://h", {"client_nam": "x"}, "client_nam"),
        ("redis://h", {"decode_responses": True}, "decode_responses"),
        ("redis://h", {"host": "other"}, "host"),
        ("redis://h", {"timeout": 0}, "timeout"),
        ("sentinel://h", {}, "redis_url"),
        ("redis+cluster://h/1", {}, "redis_url"),
    ],
)
def test_impossible_options_are_refused_by_name(url, passed, parameter):
    with pytest.raises(InvalidParameter) as caught:
        connect(url, **passed)
    assert caught.value.parameter == parameter


def test_a_misspelt_option_is_answered_with_the_near_one():
    with pytest.raises(InvalidParameter, match="did you mean 'client_name'"):
        connect("redis://h", client_nam="x")
    with pytest.raises(InvalidParameter, match="did you mean 'password'") as caught:
        connect("redis://h", passwort="s3cret")
    assert "s3cret" not in str(vars(caught.value))


def test_sentinels_are_asked_with_their_own_password_and_their_share_of_the_time():
    client = connect(
        "sentinel://:data@a:1;sentinel://b:2/3?master_name=mine&sentinel_password=watch&min_other_sentinels=1"
    )
    pool = client.connection_pool
    assert pool.service_name == "mine"
    assert (options(client)["db"], options(client)["password"]) == (3, "data")
    asking = [sentinel.connection_pool.connection_kwargs for sentinel in pool.sentinel_manager.sentinels]
    assert [(each["host"], each["port"], each["password"]) for each in asking] == [("a", 1, "watch"), ("b", 2, "watch")]
    assert {each["socket_connect_timeout"] for each in asking} == {1.0}
    assert pool.sentinel_manager.min_other_sentinels == 1


def test_sentinel_options_as_celerys_transport_options_have_them():
    client = connect("sentinel://a", master_name="mine", sentinel_kwargs={"password": "watch", "socket_timeout": 0.1})
    (sentinel,) = client.connection_pool.sentinel_manager.sentinels
    assert options(sentinel)["password"] == "watch"
    assert options(sentinel)["socket_timeout"] == 0.1


def test_a_client_is_taken_as_it_is():
    client = redis.Redis(host="h")
    assert connect(client) is client


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (None, "give a redis:// URL or a redis.Redis client"),
        (5, "give a redis:// URL"),
        (b"redis://h", "give a redis:// URL"),
        (redis.Redis, "give a redis:// URL"),
        (redis.asyncio.Redis(), "not an asyncio one"),
        (redis.Redis().pipeline(), "not a pipeline"),
        (redis.Redis(host="h", password="s3cret", decode_responses=True), "decode_responses"),
    ],
    ids=["None", "number", "bytes", "class", "asyncio", "pipeline", "text"],
)
def test_other_sources_are_refused(source, says):
    with pytest.raises(InvalidParameter) as caught:
        connect(source, parameter="ranch_redis_url")
    assert caught.value.parameter == "ranch_redis_url"
    assert says in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("redis://u:s3cret@h:1/2", "h:1/2"),
        ("redis://[::1]", "[::1]:6379/0"),
        ("rediss://:s3cret@h", "h:6379/0"),
        ("unix://:s3cret@/run/r.sock?db=1", "unix:/run/r.sock/1"),
        ("sentinel://:s3cret@a?master_name=mine", "sentinel mine/0"),
    ],
)
def test_a_server_is_named_without_its_password(url, name):
    assert server_name(connect(url)) == name


def test_anything_else_is_named_by_its_type():
    assert server_name(object()) == "object"


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (redis.exceptions.ConnectionError("Error 111\nrefused"), RedisUnavailable, "cannot be reached"),
        (redis.exceptions.TimeoutError("Timeout reading"), RedisUnavailable, "cannot be reached"),
        (redis.exceptions.ReadOnlyError("replica"), RedisUnavailable, "cannot be reached"),
        (redis.exceptions.AuthenticationError("invalid password"), RedisUnavailable, "refused the user or password"),
        (redis.exceptions.OutOfMemoryError("command not allowed"), RedisFull, "out of memory"),
        (redis.exceptions.ResponseError("OOM command not allowed script: x"), RedisFull, "out of memory"),
    ],
)
def test_what_redis_py_raises_becomes_one_line_of_ours(error, kind, says):
    explained = explain(error, redis.Redis(host="h", password="s3cret"))
    assert type(explained) is kind
    assert explained.server == "h:6379/0"
    assert says in str(explained)
    assert "\n" not in str(explained)


@pytest.mark.parametrize(
    "error", [redis.exceptions.ResponseError("WRONGTYPE"), redis.exceptions.NoPermissionError("x")]
)
def test_errors_about_the_call_itself_stay_what_they_are(error):
    assert explain(error, redis.Redis()) is error
