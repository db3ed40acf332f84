"""The bench of chain-router: what routing adds to ``delay()``, and a lookup beside uhashring.

celery-chain-router 0.2, which has our import name, is measured in the same run, in an environment that uv makes for it;
without an index to install it from, its columns say so.
"""

from __future__ import annotations

import json
import os
import subprocess
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import TYPE_CHECKING, Any

import uhashring  # type: ignore[import-untyped]  # it has no types
from celery import Celery
from measure import Operation, Table, foreign_python, judged, kibibytes, ratios, side_by_side

from celery_chain_router import ChainRouter
from celery_chain_router.membership import Member, Membership
from celery_toolkit_core.connection import connect
from celery_toolkit_core.keys import KeySpace
from celery_toolkit_core.local_server import LocalServer
from celery_toolkit_testkit import TcpProxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROUNDS = 1500
SIZES = (3, 10, 100)
#: From `chain-router.md`, section 5.
MOST_DELAY_RATIO = 1.05
MOST_LOOKUP_RATIO = {"blake2b": 0.65, "xxh3": 0.3}
MOST_MEMORY = 80.0
#: 8 ms where uhashring took 17.5 ms.
MOST_BUILD = 8 / 17.5

#: Runs under the other Python, whose package has our import name: broker and workers -> ratio, microseconds per route.
THEIRS = """
import json, statistics, sys, time
from celery import Celery
from celery_chain_router import ChainRouter
def span(call):
    start = time.perf_counter_ns(); call(); return time.perf_counter_ns() - start
def app(router):
    made = Celery("bench", broker=sys.argv[1], set_as_current=False)
    made.conf.task_routes, made.conf.task_ignore_result = router, True
    return made
router = ChainRouter(routing_key="customer_id", reset_persistent=True)
for number in range(int(sys.argv[2])): router.register_worker(f"w{number}")
plain, routed = app(None), app(router)
spans = [], []
for number in range(300):
    for each, spent in zip((plain, routed), spans):
        spent.append(span(lambda: each.send_task("work", (), {"customer_id": f"c{number}"})))
route = lambda: router.route_task("t", (), {"customer_id": "c1"})
ratio = statistics.median(spans[1]) / statistics.median(spans[0])
print(json.dumps([ratio, statistics.median(span(route) for _ in range(300)) / 1000]))
"""


def tables() -> Iterator[Table]:
    """All tables of chain-router."""
    theirs: dict[int, list[float]] = {}
    with LocalServer() as server:
        with TemporaryDirectory() as home:
            other = foreign_python(Path(home), "celery-chain-router==0.2.*", "celery[redis]")
            for size in SIZES if other else ():
                # It keeps its workers in a file at home.
                command = [str(other), "-c", THEIRS, server.url, str(size)]
                environment = {**os.environ, "HOME": home}
                done = subprocess.run(command, env=environment, capture_output=True, check=True, timeout=300)
                theirs[size] = json.loads(done.stdout)
        yield _delay(server.url, theirs)
    yield _lookup(theirs)


def _delay(url: str, theirs: dict[int, list[float]]) -> Table:
    table = Table(
        "chain-router: `delay()` with the router, ratio to none",
        ["workers", "ratio", "target", "added round trips", "target", "celery-chain-router 0.2"],
        "Workers are members of a shared ring, so that the look at the epoch once a second is in the figures. Round "
        "trips of 200 calls on the wire to our Redis, which is here another connection than the broker's.",
        picture=("router-delay", "times plain `delay()`"),
        bars={"ratio": "toolkit", "celery-chain-router 0.2": "celery-chain-router 0.2"},
    )
    for size in SIZES:
        client = connect(url)
        client.flushall()
        members = Membership(client, KeySpace("chain-router", "main"), lease=600)
        for number in range(size):
            members.join([f"w{number}"], str(number), Member("", "up").record())
        with TcpProxy(url) as proxy:
            plain, routed = _app(url, None, None), _app(url, ChainRouter(routing_key="customer_id"), proxy.url)
            send = Operation("routed", _call(routed))
            send.call(0)
            ratio = ratios(_call(plain), [send], rounds=ROUNDS)["routed"]
            before, began = proxy.round_trips, monotonic()
            for number in range(200):
                send.call(number)
            # One look a second is another thread's: it is not the caller who waits for it.
            looks = int(monotonic() - began) + 1
            trips = max(0, proxy.round_trips - before - looks) / 200
        other = f"{theirs[size][0]:.2f}" if theirs else "not measured"
        table.add(str(size), *judged(ratio, MOST_DELAY_RATIO), *judged(trips, 0, "{:g}"), other)
    return table


def _app(url: str, router: ChainRouter | None, ours: str | None) -> Any:
    app = Celery("bench", broker=url, set_as_current=False)
    app.conf.task_ignore_result = True
    app.conf.task_routes = router
    app.conf.chain_router_redis_url = ours

    def work(customer_id: str) -> None:
        """A task with a key."""

    task = app.task(name="work", shared=False)(work)
    app.finalize()
    return task


def _call(task: Any) -> Callable[[int], Any]:
    return lambda n: task.delay(customer_id=f"c{n}")


def _route(router: ChainRouter, key: str) -> Any:
    return router.route_task("t", (key,))


def _each(function: Callable[[Any], Any], keys: list[str]) -> None:
    for key in keys:
        function(key)


def _lookup(theirs: dict[int, list[float]]) -> Table:
    table = Table("chain-router: the ring", ["what", "figure", "target"])
    names = [f"worker{number}" for number in range(10)]
    reference = uhashring.HashRing(nodes=names, vnodes=150)
    for function, most in MOST_LOOKUP_RATIO.items():
        router = ChainRouter(hash=function)
        for name in names:
            router.register_worker(name)
        keys = [f"customer:{number}" for number in range(100)]
        spans = side_by_side(
            {
                "ours": partial(_each, router.ring.get, keys),
                "theirs": partial(_each, reference.get_node, keys),
                "router": partial(_each, partial(_route, router), keys),
            },
            rounds=300,
        )
        table.add(
            f"ring lookup at 10 x 150 with {function}, ratio to uhashring",
            *judged(spans["ours"] / spans["theirs"], most),
        )
        table.add(f"`route_task` with {function}", f"{spans['router'] / 100_000:.2f} us", "-")
    if theirs:
        table.add("`route_task` of celery-chain-router 0.2 at 10 workers", f"{theirs[10][1]:.0f} us", "-")
    table.add("memory of a router with 10 x 150, KiB", *judged(kibibytes(lambda: _router(10)), MOST_MEMORY, "{:.0f}"))
    many = [f"worker{number}" for number in range(100)]
    spans = side_by_side(
        {"ours": _router(100)._ring_table._rebuild, "theirs": lambda: uhashring.HashRing(nodes=many, vnodes=150)},
        rounds=20,
    )
    table.add("one change of a ring of 100 x 150, ms", f"{spans['ours'] / 1e6:.1f}", "-")
    table.add("the same, ratio to uhashring's build", *judged(spans["ours"] / spans["theirs"], MOST_BUILD))
    for balance in (None, 1.1):
        shares = [_largest_share(f"host-{number}", balance) for number in range(20)]
        row = f"largest share of 10 workers against the fair one, balance={balance}, worst of 20 rings"
        table.add(row, *(judged(max(shares), balance) if balance else (f"{max(shares):.2f}", "-")))
    return table


def _largest_share(prefix: str, balance: float | None) -> float:
    router = ChainRouter(balance=balance)
    for number in range(10):
        router.register_worker(f"{prefix}-{number}")
    return 10 * max(router.ring.shares().values())


def _router(size: int) -> ChainRouter:
    router = ChainRouter()
    for number in range(size):
        router.register_worker(f"worker{number}")
    return router
