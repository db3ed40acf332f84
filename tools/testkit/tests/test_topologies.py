"""Each way to reach a Redis really is that way, and sentinels replace a master that is gone."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import redis

from celery_toolkit_core.connection import connect
from celery_toolkit_core.local_server import LocalServer, ServerFailed
from celery_toolkit_testkit import eventually
from celery_toolkit_testkit.certificates import OpensslNotFound
from celery_toolkit_testkit.plugin import missing
from celery_toolkit_testkit.sentinels import MASTER_NAME, sentinel_url, sentinels
from celery_toolkit_testkit.topologies import TOPOLOGIES


def port_of(client):
    return client.get_connection_kwargs()["port"]


PROOFS = {
    "plain": lambda client, port: port_of(client) == port,
    "unix": lambda client, port: client.client_info()["flags"] == "U",
    "acl": lambda client, port: client.acl_whoami() == "toolkit",
    "tls": lambda client, port: client.config_get("tls-port")["tls-port"] == str(port_of(client)),
    "cluster": lambda client, port: client.cluster_info()["cluster_slots_assigned"] == "16384",
    "sentinel": lambda client, port: client.connection_pool.service_name == MASTER_NAME,
}


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_the_server_is_reached_in_that_way(name):
    with ExitStack() as stack:
        try:
            reached = stack.enter_context(TOPOLOGIES[name](None))
        except (OpensslNotFound, ServerFailed) as error:
            if name != "tls":
                raise
            missing(f"no TLS here: {error}")
        client = connect(reached.url, timeout=10.0)
        client.set("key", "value")
        assert client.get("key") == b"value"
        assert PROOFS[name](client, reached.server.port)
        client.close()


def test_sentinels_replace_a_master_that_is_gone():
    with LocalServer() as master, LocalServer(config={"replicaof": ["127.0.0.1", master.port]}) as replica:
        with redis.Redis.from_url(replica.url) as client:
            eventually(lambda: client.info("replication")["master_link_status"] == "up")
        with sentinels(master, 3, down_after=0.5) as ports:
            client = connect(sentinel_url(ports), timeout=10.0)
            client.set("key", "value")
            with redis.Redis(port=ports[0]) as asked:
                eventually(lambda: asked.sentinel_master(MASTER_NAME)["num-slaves"] == 1)
            assert client.wait(1, 30_000) == 1
            master.kill()

            def answered():
                try:
                    return client.get("key")
                except redis.ConnectionError:
                    return None

            assert eventually(answered, 60) == b"value"
            assert client.info("server")["process_id"] == replica.pid
            client.close()
