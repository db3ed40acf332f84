"""The bench of ranch: what a fair turn adds to sending and running a task, and how it grows with clients."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from celery import Celery
from measure import Operation, Table, judged, ratios, round_trips, server_microseconds

from celery_ranch import audit, lru_task
from celery_ranch.backlog import Backlog, client_of, queue_of
from celery_ranch.entries import Report, Submission
from celery_toolkit_core.connection import connect
from celery_toolkit_core.keys import KeySpace
from celery_toolkit_core.local_server import LocalServer
from celery_toolkit_core.scripts import Scripts
from celery_toolkit_testkit import TcpProxy, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROUNDS = 400
CLIENTS = (10, 1_000, 10_000, 100_000)
TASKS = 2_000
#: From `ranch.md`, section 5.
MOST_SUBMIT_RATIO = 1.35
MOST_CLAIM_GROWTH = 1.3
LEAST_THROUGHPUT = 0.85

QUEUE = queue_of("", "celery")

#: The worker's application: no results, no log of each task.
APP = """
import os
from celery import Celery
from celery_ranch import lru_task
app = Celery("bench", broker=os.environ["BENCH_URL"])
app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=4, broker_connection_retry_on_startup=True)
@app.task
def plain(): pass
@lru_task(app)
def fair(): pass
"""


def tables() -> Iterator[Table]:
    """All tables of ranch."""
    with LocalServer() as server:
        yield _submit(server.url)
        yield _growth(server.url)
        yield _throughput(server.url)


def _fair_call(task: Any) -> Callable[[int], Any]:
    return lambda n: task.lru_delay(f"c{n % 100}")


def _plain_call(task: Any) -> Callable[[int], Any]:
    return lambda n: task.delay()


def _submit(url: str) -> Table:
    table = Table(
        "ranch: `lru_delay()`, ratio to plain `delay()`",
        ["tasks waiting", "ratio", "target", "round trips", "target"],
        "Round trips on the wire to our Redis; the ticket is the other one, where plain Celery sends the task.",
    )
    for waiting in (0, 100_000):
        client = connect(url)
        client.flushall()
        _fill(Backlog(client, KeySpace("ranch")), clients=100, tasks=waiting)
        plain, fair = _tasks(url, url)
        send = Operation("fair", _fair_call(fair))
        send.call(0)
        ratio = ratios(_plain_call(plain), [send], rounds=ROUNDS)["fair"]
        with TcpProxy(url) as proxy:
            _, seen = _tasks(url, proxy.url)
            trips = round_trips(proxy, Operation("seen", _fair_call(seen)))
        table.add(f"{waiting:,}", *judged(ratio, MOST_SUBMIT_RATIO), *judged(trips, 1, "{:g}"))
    return table


def _growth(url: str) -> Table:
    table = Table(
        "ranch: one claim that settles the task before, by the number of clients",
        ["clients", "server time", "ratio to 10 clients", "target", "round trips", "target"],
    )
    base = 0.0
    for clients in CLIENTS:
        client = connect(url)
        client.flushall()
        backlog = Backlog(client, KeySpace("ranch"))
        _fill(backlog, clients=clients, tasks=max(clients, 2_000))
        with TcpProxy(url) as proxy:
            through = Backlog(connect(proxy.url), KeySpace("ranch"))
            trips = round_trips(proxy, Operation("seen", _Claims(through)))
            claim = Operation("claim", _Claims(backlog))
            spent = min(server_microseconds(client, claim) for _ in range(3))
        base = base or spent
        table.add(
            f"{clients:,}",
            f"{spent:.0f} us",
            *judged(spent / base, MOST_CLAIM_GROWTH),
            *judged(trips, 1, "{:g}"),
        )
    return table


def _throughput(url: str) -> Table:
    table = Table(
        "ranch: tasks per second of one worker (prefork, 2 processes) that do nothing, ratio to plain Celery",
        ["", "tasks/s", "ratio", "target"],
        "Each has all its tasks waiting when the worker begins; alternating, the best of two each.",
    )
    rates: dict[str, float] = {"plain": 0.0, "fair": 0.0}
    for _ in range(2):
        for name in rates:
            rates[name] = max(rates[name], _rate(url, name))
    table.add("plain Celery", f"{rates['plain']:.0f}", "1", "-")
    ratio = rates["fair"] / rates["plain"]
    shown = f"{ratio:.2f}" if ratio >= LEAST_THROUGHPUT else f"**{ratio:.2f}** (missed)"
    table.add("ranch", f"{rates['fair']:.0f}", shown, f">= {LEAST_THROUGHPUT}")
    return table


def _rate(url: str, name: str) -> float:
    client = connect(url)
    client.flushall()
    plain, fair = _tasks(url, url)
    for number in range(TASKS):
        if name == "plain":
            plain.delay()
        else:
            fair.lru_delay(f"c{number % 50}")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "bench_app.py").write_text(APP)
        environment = {**os.environ, "PYTHONPATH": folder, "BENCH_URL": url, "C_FORCE_ROOT": "1"}
        command = [sys.executable, "-m", "celery", "-A", "bench_app", "worker", "-c", "2", "-l", "ERROR"]
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        worker = subprocess.Popen(
            [*command, *quiet], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            # From the first tenth to the last: starting is not what is measured.
            eventually(lambda: client.llen("celery") <= TASKS * 0.9, timeout=60, interval=0.002)
            left, start = client.llen("celery"), time.perf_counter()
            eventually(lambda: client.llen("celery") == 0, timeout=120, interval=0.002)
            spent = time.perf_counter() - start
            if name == "fair":
                eventually(lambda: audit(fair.app)["done"] == TASKS, timeout=60)
        finally:
            worker.terminate()
            worker.wait()
    return float(left / spent)


class _Claims:
    """Claims one task after the other; each claim reports the end of the last."""

    def __init__(self, backlog: Backlog) -> None:
        self.backlog = backlog
        self.reports: list[Report] = []

    def __call__(self, _: int) -> None:
        claim = self.backlog.claim(
            QUEUE, uuid4().hex, uuid4().hex, lease=30, max_attempts=3, reports=self.reports
        ).claimed
        assert claim is not None
        self.reports = [Report("end", claim.entry, claim.token, "done")]


def _fill(backlog: Backlog, *, clients: int, tasks: int) -> None:
    scripts = Scripts(backlog.client, "celery_ranch")
    for start in range(0, tasks, 1000):
        pipeline = backlog.client.pipeline(transaction=False)
        for number in range(start, min(start + 1000, tasks)):
            label = f"c{number % clients}"
            task = Submission(b"x" * 500, QUEUE, b'["", "celery"]', client_of(label), label)
            scripts.run("enqueue", backlog.keys, task.arguments(uuid4().hex), client=pipeline)
        pipeline.execute()


def _tasks(broker: str, ours: str) -> tuple[Any, Any]:
    app = Celery("bench", broker=broker, set_as_current=False)
    app.conf.update(task_ignore_result=True, ranch_redis_url=ours)

    def nothing() -> None:
        """A task."""

    plain = app.task(name="bench_app.plain", shared=False)(nothing)
    fair = lru_task(app, name="bench_app.fair", shared=False)(nothing)
    app.finalize()
    return plain, fair
