"""One client for every way to reach a Redis: it works, and when it does not, it says so without the password."""

from __future__ import annotations

import traceback
from contextlib import ExitStack
from urllib.parse import quote

import pytest

from celery_toolkit_core.connection import connect, ping, server_name
from celery_toolkit_core.errors import RedisUnavailable
from celery_toolkit_core.local_server import LocalServer, ServerFailed, find_program
from celery_toolkit_testkit.certificates import Authority, OpensslNotFound, tls_config
from celery_toolkit_testkit.plugin import missing
from celery_toolkit_testkit.sentinels import sentinel_url, sentinels
from celery_toolkit_testkit.topologies import AWKWARD_PASSWORD, TOPOLOGIES

CANARY = "".join(["sesame", "-", "4711"])  # not as one word, which the source lines in a traceback would show


@pytest.fixture(params=TOPOLOGIES)
def reached(request):
    with ExitStack() as stack:
        try:
            found = stack.enter_context(TOPOLOGIES[request.param](None))
        except (OpensslNotFound, ServerFailed) as error:
            if request.param != "tls":
                raise
            missing(f"no TLS here: {error}")
        yield found


def all_of(error):
    """What a log with the whole traceback would show."""
    return "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))


def test_a_client_works_and_shows_no_password(reached):
    client = connect(reached.url, timeout=10.0)
    ping(client)
    client.set("key", "value")
    assert client.get("key") == b"value"
    for shown in (server_name(client), repr(client), str(client)):
        assert AWKWARD_PASSWORD not in shown
        assert quote(AWKWARD_PASSWORD, safe="") not in shown
    client.close()


def test_its_end_is_a_clear_error(reached):
    client = connect(reached.url, timeout=10.0)
    ping(client)
    reached.kill()
    with pytest.raises(RedisUnavailable) as caught:
        ping(client)
    assert "\n" not in str(caught.value)
    assert caught.value.server in str(caught.value)
    assert AWKWARD_PASSWORD not in all_of(caught.value)
    client.close()


@pytest.fixture
def locked():
    """A server that wants another password than the canary, on a port and on a socket file."""
    with LocalServer(config={"requirepass": AWKWARD_PASSWORD}, unix_socket=True) as server:
        yield server


@pytest.mark.parametrize("way", ["port", "user", "socket"])
def test_a_wrong_password_is_told_without_it(locked, way):
    url = {
        "port": f"redis://:{CANARY}@127.0.0.1:{locked.port}/0",
        "user": f"redis://somebody:{CANARY}@127.0.0.1:{locked.port}/0",
        "socket": f"unix://:{CANARY}@{locked.socket_url.removeprefix('unix://')}",
    }[way]
    client = connect(url, timeout=10.0)
    with pytest.raises(RedisUnavailable, match="refused the user or password") as caught:
        ping(client)
    assert CANARY not in all_of(caught.value)
    client.close()


def test_a_wrong_password_behind_a_sentinel_is_told_without_it():
    with LocalServer(config={"requirepass": AWKWARD_PASSWORD}) as server, sentinels(server) as ports:
        client = connect(f"{sentinel_url(ports)}&password={CANARY}", timeout=10.0)
        with pytest.raises(RedisUnavailable) as caught:
            ping(client)
        assert CANARY not in all_of(caught.value)
        client.close()


def test_a_wrong_password_of_a_cluster_is_told_without_it():
    with LocalServer(config={"cluster-enabled": "yes", "requirepass": AWKWARD_PASSWORD}) as server:
        with pytest.raises(RedisUnavailable) as caught:
            connect(f"redis+cluster://:{CANARY}@127.0.0.1:{server.port}", timeout=10.0)
        assert CANARY not in all_of(caught.value)


def test_tls_fails_closed_on_a_certificate_that_has_expired(tmp_path):
    if "redis-server" not in find_program().name:
        missing("the wheel's server is built without TLS")
    authority = Authority(tmp_path)
    with LocalServer(config=tls_config(authority.issue(days=-1), authority)) as server:
        client = connect(f"{server.url}?ssl_ca_certs={authority.certificate}", timeout=10.0)
        with pytest.raises(RedisUnavailable, match="expired"):
            ping(client)
        client.close()
