"""The bench of heimdall: what a lock and a limit cost, and how exactly a limit is kept with real workers.

The older packages for the same end are measured in the same run, each in an environment of its own that `uv` makes;
without `uv` or an index their column says so.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from celery import Celery
from measure import Operation, Table, foreign_python, judged, ratios, round_trips

from celery_heimdall import Concurrency, HeimdallTask, RateLimit
from celery_heimdall.calls import Call
from celery_heimdall.claims import Claim
from celery_toolkit_core.connection import connect
from celery_toolkit_core.local_server import LocalServer
from celery_toolkit_testkit import EventLog, TcpProxy
from celery_toolkit_testkit.events import PATH_VARIABLE
from celery_toolkit_testkit.worker import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

ROUNDS = 600
#: From `heimdall.md`, section 6.
MOST_FREE, MOST_DUPLICATE, MOST_DECISION = 1.35, 0.5, 1.5
TASKS, WORKERS, PROCESSES = 200, 4, 4
#: What a worker does between two unique tasks.
TURN = "unique task: finish, and enter the next"
IDEAL = 19.0

LIMITED = """
from celery import Celery
from celery_heimdall import HeimdallTask
from celery_toolkit_testkit import log_event
app = Celery("limited")
@app.task(base=HeimdallTask, heimdall={"times": 10, "per": 1}, name="limited", ignore_result=True, bind=True)
def limited(self, number):
    log_event(number=number, stamp=self.request.heimdall_claim.stamp, retries=self.request.retries)
"""

#: Others' packages: how each declares a unique task.
PEERS = {
    "celery-heimdall": """
from celery_heimdall import HeimdallTask as Base
options = {"heimdall": {"unique": True}}
""",
    "celery-once": """
from celery_once import QueueOnce as Base
app.conf.ONCE = {"backend": "celery_once.backends.Redis", "settings": {"url": sys.argv[1], "default_timeout": 3600}}
options = {"once": {"graceful": True}}
""",
    "celery-singleton": """
from celery_singleton import Singleton as Base
options = {}
""",
}
#: How often a duplicate is asked for: with celery-heimdall each waits for nearly a second.
THEIR_DUPLICATES = 8

#: Runs under another Python with another's package. Prints the two ratios.
THEIRS = """
import gc, sys, time
from statistics import median
from celery import Celery
app = Celery("bench", broker=sys.argv[1], backend=sys.argv[1])
app.conf.task_ignore_result = True
DECLARATION
@app.task(name="plain")
def plain(number): pass
@app.task(name="unique", base=Base, **options)
def unique(number): pass
def span(call, number):
    start = time.perf_counter_ns()
    call(number)
    return time.perf_counter_ns() - start
plain.delay(-1)
unique.delay(-1)
gc.disable()
pairs = [(span(plain.delay, n), span(unique.delay, n)) for n in range(ROUNDS)]
base = median(a for a, _ in pairs)
again = [span(unique.delay, -1) for _ in range(DUPLICATES)]
print(median(b for _, b in pairs) / base, median(again) / base)
"""


def tables() -> Iterator[Table]:
    """All tables of heimdall."""
    with LocalServer() as server:
        yield _submitting(server.url)
        yield _deciding(server.url)
        yield _keeping(server.url)


def _app(broker: str, ours: str) -> dict[str, Any]:
    app = Celery("bench", broker=broker, set_as_current=False)
    app.conf.update(task_ignore_result=True, heimdall_redis_url=ours)

    def body(number: int) -> None:
        """A task with a key."""

    unique = {"unique": True}
    tasks = {
        "plain": app.task(name="plain", shared=False)(body),
        "unique": app.task(name="unique", shared=False, base=HeimdallTask, heimdall=unique)(body),
        "limited": app.task(name="limited", shared=False, base=HeimdallTask, limits=[RateLimit("1000000/h")])(body),
        "full": app.task(name="full", shared=False, base=HeimdallTask, limits=[Concurrency(1)])(body),
    }
    app.finalize()
    return tasks


def _submitting(url: str) -> Table:
    table = Table(
        "heimdall: `delay()` of a unique task, ratio to a plain one",
        ["call", "ratio", "target", "added round trips", "target", *PEERS],
        "Round trips in the caller's way, on the wire to our Redis, here another connection than the broker's; the "
        "confirmation of a published message is one more, from a thread, and is part of the ratio. The older packages "
        "confirm nothing: a producer that dies, or a publish that fails, leaves their key locked.",
    )
    theirs = [_peer(url, *peer) for peer in PEERS.items()]
    connect(url).flushall()
    tasks = _app(url, url)
    free = Operation("free", lambda n: tasks["unique"].delay(n))
    duplicate = Operation("duplicate", lambda _: tasks["unique"].delay(-1))
    duplicate.call(0)
    tasks["plain"].delay(0)
    found = ratios(lambda n: tasks["plain"].delay(n), [free, duplicate], rounds=ROUNDS)
    connect(url).flushall()
    with TcpProxy(url) as proxy, patch("celery_heimdall.unique.confirm_soon"):
        counted = _app(url, proxy.url)
        trips = [
            round_trips(proxy, Operation("free", lambda n: counted["unique"].delay(time.monotonic_ns()))),
            round_trips(proxy, Operation("duplicate", lambda _: counted["unique"].delay(-1))),
        ]
    rows = (("free", "on a free key", MOST_FREE), ("duplicate", "duplicate", MOST_DUPLICATE))
    for (name, label, most), trip, others in zip(rows, trips, zip(*theirs, strict=True), strict=True):
        table.add(label, *judged(found[name], most), *judged(trip, 1, "{:g}"), *others)
    return table


def _peer(url: str, name: str, declaration: str) -> list[str]:
    """The two ratios of another's package, on a free key and of a duplicate."""
    connect(url).flushall()
    code = (
        THEIRS.replace("DECLARATION", declaration)
        .replace("ROUNDS", str(ROUNDS // 2))
        .replace("DUPLICATES", str(THEIR_DUPLICATES))
    )
    with tempfile.TemporaryDirectory() as folder:
        python = foreign_python(Path(folder), name, "celery[redis]")
        if python is None:
            return ["not measured"] * 2
        done = subprocess.run([python, "-c", code, url], capture_output=True, check=True, timeout=300, text=True)
    return [f"{float(word):.2f}" for word in done.stdout.split()]


def _deciding(url: str) -> Table:
    table = Table(
        "heimdall: the scripts of the worker",
        ["script", "round trips", "target", "x PING", "target"],
        "Of a connection over the loopback; round trips are counted over a line of 2 ms each way. A worker does not "
        "wait for the answer to what it gives back: that comes with the answer to its next question.",
    )

    def claim(task: Any, number: int) -> Claim:
        # A message that comes by `apply_async` names its key.
        label = f"unique:{number:032x}" if task.heimdall_config.unique else None
        return Claim(task, Call(task, (number,)), label, f"id-{number}", 0, f"id-{number}/1")

    def enter(task: Any, number: int) -> Any:
        # `later` stays False: the limits are decided now.
        options: dict[str, Any] = {"woken": False, "queue": "celery", "later": False, "join": False, "holder": ""}
        return claim(task, number).enter(message=b"x" * 500, **options)

    def operations(tasks: dict[str, Any]) -> list[Operation]:
        # The tasks themselves, as the worker has them, not what stands for them until they are made.
        unique, limited, full = (tasks[name].app.tasks[name] for name in ("unique", "limited", "full"))
        enter(full, 10**6)

        def turn(number: int) -> None:
            claim(unique, number).finish_unheard("success", comes_back=False, heard=lambda _: None)
            enter(unique, 10**5 + number)

        return [
            Operation("unique task: enter", lambda n: enter(unique, n)),
            Operation(TURN, turn, lambda n: enter(unique, n)),
            Operation(
                "unique task: finish, without a next one",
                lambda n: claim(unique, n).finish("success", comes_back=False),
                lambda n: enter(unique, n),
            ),
            Operation("limit, free: enter", lambda n: enter(limited, n)),
            Operation(
                "limit, free: start of the body", lambda n: claim(limited, n).start(), lambda n: enter(limited, n)
            ),
            Operation("limit, full: enter and park", lambda n: enter(full, n)),
        ]

    connect(url).flushall()
    with TcpProxy(url) as proxy:
        counted = operations(_app(url, proxy.url))
        proxy.latency = 0.002
        trips = {each.name: round_trips(proxy, each) for each in counted}
    connect(url).flushall()
    tasks = _app(url, url)
    client = tasks["unique"].heimdall_store.client
    found = ratios(lambda _: client.ping(), operations(tasks), rounds=200)
    for name, trip in trips.items():
        # Two decisions in one round trip.
        most = 2 * MOST_DECISION if name == TURN else MOST_DECISION
        table.add(name, *judged(trip, 1, "{:g}"), *judged(found[name], most))
    return table


def _keeping(url: str) -> Table:
    table = Table(
        f"heimdall: {TASKS} tasks at 10 per 1 s, {WORKERS} workers x {PROCESSES}, 5 ms latency each way",
        ["what", "figure", "target"],
        "Starts by the clock of Redis, from the stamps of the limit.",
    )
    connect(url).flushall()
    with tempfile.TemporaryDirectory() as folder, TcpProxy(url) as proxy:
        (Path(folder) / "limited.py").write_text(LIMITED)
        log = EventLog(Path(folder) / "events")
        proxy.latency = 0.005
        environment = {
            "CELERY_BROKER_URL": url,
            "CELERY_RESULT_BACKEND": proxy.url,
            PATH_VARIABLE: str(log.path),
            "C_FORCE_ROOT": "1",
        }
        os.environ.update(environment)
        workers = [
            WorkerProcess("limited", Path(folder) / f"{n}.log", name=f"w{n}", concurrency=PROCESSES, path=[folder])
            for n in range(WORKERS)
        ]
        try:
            for worker in workers:
                worker.wait_ready()
            sys.path.insert(0, folder)
            from limited import limited  # type: ignore[import-not-found]  # written above

            for number in range(TASKS):
                limited.delay(number)
            events = log.wait_for(TASKS, timeout=120)
        finally:
            for worker in workers:
                worker.destroy()
        parkings = sum(worker.log().count("task_parked") for worker in workers)
    stamps = sorted(event["stamp"] / 1e6 for event in events)
    densest = max(sum(begin <= other <= begin + 1 for other in stamps) for begin in stamps)
    table.add("most starts in any second", *judged(densest, 10, "{:g}"))
    table.add("seconds from the first start to the last", *judged(stamps[-1] - stamps[0], IDEAL * 1.1, "{:.1f}"))
    table.add("parkings per task", *judged(parkings / TASKS, 1.05))
    table.add("retries", *judged(max(event["retries"] for event in events), 0, "{:g}"))
    return table
