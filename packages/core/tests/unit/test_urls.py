"""Redis URLs: every form that Celery's users write, every odd one refused, no secret shown."""

from __future__ import annotations

import contextlib
import ssl
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_toolkit_core.errors import InvalidParameter, ToolkitError
from celery_toolkit_core.urls import find_redis_url, mask, parse


def parts(url):
    address = parse("redis_url", url)
    return address.kind, address.tls, address.hosts, address.path, address.db, address.username, address.password


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://", ("tcp", False, (("localhost", 6379),), "", 0, None, None)),
        ("redis://h", ("tcp", False, (("h", 6379),), "", 0, None, None)),
        ("REDIS://h:1/2", ("tcp", False, (("h", 1),), "", 2, None, None)),
        ("redis://h:1/", ("tcp", False, (("h", 1),), "", 0, None, None)),
        ("redis://h:1/2?db=3", ("tcp", False, (("h", 1),), "", 3, None, None)),
        ("redis://h:1?virtual_host=4", ("tcp", False, (("h", 1),), "", 4, None, None)),
        ("redis://:p%40ss@h:1/0", ("tcp", False, (("h", 1),), "", 0, None, "p@ss")),
        ("redis://u:p@h", ("tcp", False, (("h", 6379),), "", 0, "u", "p")),
        ("redis://:a;b@h", ("tcp", False, (("h", 6379),), "", 0, None, "a;b")),
        ("redis://[::1]:7/1", ("tcp", False, (("::1", 7),), "", 1, None, None)),
        ("redis://a:1/2;redis://b:3/4", ("tcp", False, (("a", 1),), "", 2, None, None)),
        ("rediss://h", ("tcp", True, (("h", 6379),), "", 0, None, None)),
        ("unix:///run/r.sock?db=2", ("unix", False, (), "/run/r.sock", 2, None, None)),
        ("unix://:p@/run/r.sock", ("unix", False, (), "/run/r.sock", 0, None, "p")),
        ("redis+socket:///run/r%20s.sock?virtual_host=2", ("unix", False, (), "/run/r s.sock", 2, None, None)),
        ("sentinel://a", ("sentinel", False, (("a", 26379),), "", 0, None, None)),
        (
            "sentinel://:p@a:1/3;sentinel://:p@b:2/3",
            ("sentinel", False, (("a", 1), ("b", 2)), "", 3, None, "p"),
        ),
        ("sentinel://a:1;b:2;[::1]:3/3", ("sentinel", False, (("a", 1), ("b", 2), ("::1", 3)), "", 3, None, None)),
        ("redis+cluster://:p@a:1;b:2", ("cluster", False, (("a", 1), ("b", 2)), "", 0, None, "p")),
        ("rediss+cluster://a", ("cluster", True, (("a", 6379),), "", 0, None, None)),
    ],
)
def test_forms_of_urls(url, expected):
    assert parts(url) == expected


def test_options_are_kept_as_text_for_later():
    query = parse("redis_url", "sentinel://a:1;b:2/0?master_name=m&ssl_cert_reqs=CERT_NONE").query
    assert query == {"master_name": "m", "ssl_cert_reqs": "CERT_NONE"}


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("", "begin it with"),
        ("localhost:6379", "begin it with"),
        ("reids://h", "did you mean 'redis'"),
        ("amqp://u:s3cret@h", "begin it with"),
        ("redis://h:port/0", "check host and port"),
        ("redis://h:99999", "check host and port"),
        ("redis://[::1", "check host and port"),
        ("redis://:s3#cret@h:1", "write special characters of the password as %XX"),
        ("redis://:s3/cret@h:1", "write special characters of the password as %XX"),
        ("redis://h:1/0#part", "write # as %23"),
        ("redis://h/zero", "database number"),
        ("redis://h/-1", "database number"),
        ("redis://h/1/2", "database number"),
        ("redis://h?db=x", "database number"),
        ("unix://", "name the socket's path"),
        ("unix:///", "name the socket's path"),
    ],
)
def test_odd_urls_are_refused_without_showing_the_password(url, remedy):
    with pytest.raises(InvalidParameter) as caught:
        parse("ranch_redis_url", url)
    assert caught.value.parameter == "ranch_redis_url"
    assert remedy in str(caught.value)
    assert "s3" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h:1/0", "redis://h:1/0"),
        ("redis://:pw@h:1/0", "redis://:**@h:1/0"),
        ("redis://user:pw@h:1/0?ssl_password=pw&x=1", "redis://user:**@h:1/0?ssl_password=**&x=1"),
        ("redis://:p@w@h", "redis://:**@h"),
        ("redis://:p/w#?@h", "redis://:**@h"),
        ("sentinel://:pw@a:1;sentinel://:pw@b:2/0?sentinel_password=pw", None),
        ("redis+cluster://:pw@a:1;b:2", "redis+cluster://:**@a:1;b:2"),
        ("unix://u:pw@/run/r.sock?password=pw", "unix://u:**@/run/r.sock?password=**"),
        ("u:pw@h", "u:**@h"),
        ("", ""),
    ],
)
def test_masked_urls_show_all_but_the_secret(url, shown):
    assert "pw" not in mask(url)
    if shown is not None:
        assert mask(url) == shown


@given(st.text(st.characters()) | st.text(";:/?#@&=a1"), st.sampled_from(["redis", "sentinel", "amqp", "unix"]))
def test_a_raw_password_of_any_characters_is_hidden(password, scheme):
    canary = f"CANARY{password}CANARY"
    assert "CANARY" not in mask(f"{scheme}://user:{canary}@host:6379/0")


@given(st.text(st.characters(), max_size=60))
def test_no_text_makes_parse_fail_in_another_way(text):
    for url in (text, f"redis://{text}", f"sentinel://{text}", f"unix://{text}"):
        with contextlib.suppress(InvalidParameter):
            parse("redis_url", url)


def test_the_repr_of_an_address_hides_the_password():
    assert repr(parse("redis_url", "redis://:pw@h/1")) == "RedisAddress('redis://:**@h/1')"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {
                "ranch_redis_url": "redis://own",
                "toolkit_redis_url": "redis://all",
                "result_backend": "redis://results",
                "broker_url": "redis://broker",
            },
            "redis://own",
        ),
        ({"toolkit_redis_url": "redis://all", "result_backend": "redis://results"}, "redis://all"),
        ({"result_backend": "redis://results", "broker_url": "redis://broker"}, "redis://results"),
        ({"result_backend": "rpc://", "broker_url": "redis://broker"}, "redis://broker"),
        ({"result_backend": None, "broker_url": "rediss://broker/1"}, "rediss://broker/1"),
        ({"result_backend": "cache+memcached://h", "broker_url": ["amqp://a", "redis://b", "redis://c"]}, "redis://b"),
        ({"broker_url": "amqp://a;redis://b;redis://c"}, "redis://b"),
        ({"broker_url": "redis+socket:///run/r.sock"}, "redis+socket:///run/r.sock"),
        ({"broker_url": "sentinel://a:1;sentinel://b:2"}, "sentinel://a:1;sentinel://b:2"),
        ({"broker_url": ["sentinel://a:1", "sentinel://b:2"]}, "sentinel://a:1;sentinel://b:2"),
        ({"ranch_redis_url": "redis+cluster://a:1;b:2"}, "redis+cluster://a:1;b:2"),
    ],
)
def test_the_first_setting_that_is_a_redis_is_taken(settings, expected):
    assert find_redis_url(settings.get, "ranch") == expected


@pytest.mark.parametrize("settings", [{}, {"broker_url": "amqp://h", "result_backend": "rpc://"}, {"broker_url": ""}])
def test_without_a_redis_there_is_a_clear_error(settings):
    with pytest.raises(ToolkitError, match="no Redis is configured for ranch: set ranch_redis_url"):
        find_redis_url(settings.get, "ranch")


@pytest.mark.parametrize("value", ["amqp://h", "localhost", 5, ["amqp://h"]])
@pytest.mark.parametrize("key", ["ranch_redis_url", "toolkit_redis_url"])
def test_what_is_set_on_purpose_is_never_passed_over(key, value):
    with pytest.raises(InvalidParameter) as caught:
        find_redis_url({key: value, "broker_url": "redis://h"}.get, "ranch")
    assert caught.value.parameter == key


def test_what_celery_keeps_beside_the_url_travels_along():
    found = find_redis_url(
        {
            "broker_url": "sentinel://a:1;sentinel://b:2/1",
            "broker_transport_options": {
                "master_name": "my master",
                "visibility_timeout": 60,
                "sentinel_kwargs": {"password": "s&nt"},
            },
            "broker_use_ssl": {"ssl_cert_reqs": ssl.CERT_OPTIONAL, "ssl_ca_certs": "/ca.pem", "ssl_keyfile": None},
        }.get,
        "ranch",
    )
    address = parse("broker_url", found)
    assert address.hosts == (("a", 1), ("b", 2))
    assert address.db == 1
    assert address.query == {
        "master_name": "my master",
        "sentinel_password": "s&nt",
        "ssl_cert_reqs": "CERT_OPTIONAL",
        "ssl_ca_certs": "/ca.pem",
    }
    assert "s%26nt" not in mask(found)


def test_what_the_url_says_itself_wins():
    settings = {
        "result_backend": "rediss://h?ssl_cert_reqs=none",
        "redis_backend_use_ssl": {"ssl_cert_reqs": "required"},
    }
    assert find_redis_url(settings.get, "ranch") == "rediss://h?ssl_cert_reqs=none"
    assert (
        find_redis_url({"broker_url": "redis://h", "broker_use_ssl": True}.get, "r")
        == "redis://h?ssl_cert_reqs=required"
    )
