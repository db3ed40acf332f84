"""The ways to reach a Redis, each for real: so that one suite can be run over all of them."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import redis

from celery_toolkit_core.local_server import LocalServer

from .certificates import Authority, tls_config
from .polling import eventually
from .sentinels import sentinel_url, sentinels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

#: How many slots a cluster's nodes share.
SLOTS = 16384
#: All that a password may contain and a URL must not.
AWKWARD_PASSWORD = "p@:/?#[]%25 ü&=;+"


@dataclass(frozen=True, slots=True)
class Reached:
    """A server and the URL that leads to it in the chosen way.

    Args:
        server: The server, or one of a cluster's nodes.
        url: How it is reached.
        others: The other nodes.
    """

    server: LocalServer
    url: str
    others: Sequence[LocalServer] = ()

    def settle(self) -> None:
        """Wait until the nodes of a cluster agree that it is one; a node that comes back takes some seconds."""
        for server in (self.server, *self.others) if self.others else ():
            with redis.Redis(port=server.port) as client:
                eventually(lambda: client.execute_command("CLUSTER INFO")["cluster_state"] == "ok")

    def kill(self) -> None:
        """End it, all of its nodes, as ``kill -9`` does."""
        for server in (self.server, *self.others):
            server.kill()


@contextmanager
def plain(program: str | Path | None = None) -> Iterator[Reached]:
    """By host and port."""
    with LocalServer(program) as server:
        yield Reached(server, server.url)


@contextmanager
def unix(program: str | Path | None = None) -> Iterator[Reached]:
    """By a socket file."""
    with LocalServer(program, unix_socket=True) as server:
        yield Reached(server, server.socket_url)


@contextmanager
def acl(program: str | Path | None = None) -> Iterator[Reached]:
    """As a user who may do everything, with a password that has to be quoted."""
    user = ["toolkit", "on", f">{AWKWARD_PASSWORD}", "~*", "&*", "+@all"]
    with LocalServer(program, config={"user": user}) as server:
        yield Reached(server, f"redis://toolkit:{quote(AWKWARD_PASSWORD, safe='')}@127.0.0.1:{server.port}/0")


@contextmanager
def tls(program: str | Path | None = None) -> Iterator[Reached]:
    """Over TLS, with a certificate that is checked; the programs of the wheels are built without."""
    with tempfile.TemporaryDirectory(prefix="tls-") as folder:
        authority = Authority(Path(folder))
        # Its port without TLS stays, for proxies and for workers whose broker it is.
        with LocalServer(program) as free:
            tls_port = free.port
        with LocalServer(program, config={**tls_config(authority.issue(), authority), "tls-port": tls_port}) as server:
            yield Reached(server, f"rediss://127.0.0.1:{tls_port}/0?ssl_ca_certs={authority.certificate}")


@contextmanager
def cluster(program: str | Path | None = None) -> Iterator[Reached]:
    """A cluster of three nodes that share the slots: none takes a script whose keys lie in more than one slot."""
    with ExitStack() as stack:
        config = {"cluster-enabled": "yes"}
        nodes = [stack.enter_context(LocalServer(program, config=config)) for _ in range(3)]
        for number, node in enumerate(nodes):
            client = stack.enter_context(redis.Redis(port=node.port))
            client.execute_command("CLUSTER", "ADDSLOTS", *range(number, SLOTS, len(nodes)))
            # Two of the same epoch quarrel about it a moment after they have met.
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[0].port)
        reached = Reached(nodes[0], f"redis+cluster://127.0.0.1:{nodes[0].port}", nodes[1:])
        reached.settle()
        yield reached


@contextmanager
def sentinel(program: str | Path | None = None) -> Iterator[Reached]:
    """Through one sentinel that knows where the master is, and has no other to take if that is slow for a while."""
    with LocalServer(program) as server, sentinels(server, down_after=60) as ports:
        yield Reached(server, sentinel_url(ports))


#: By the name that the variable ``TOOLKIT_TEST_TOPOLOGY`` gives them.
TOPOLOGIES: Mapping[str, Callable[[str | Path | None], AbstractContextManager[Reached]]] = {
    "plain": plain,
    "unix": unix,
    "acl": acl,
    "tls": tls,
    "cluster": cluster,
    "sentinel": sentinel,
}
