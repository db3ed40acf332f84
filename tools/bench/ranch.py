"""The bench of ranch: what a fair turn adds to sending and running a task, and how it grows with clients.

celery-ranch 0.1.1, which has our import name, is measured in the same run, in an environment that uv makes for it;
without uv or an index its column says so.
"""

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
from measure import Operation, Table, foreign_python, judged, ratios, round_trips, server_microseconds

from celery_ranch import lru_task
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
#: Clients, and tasks that wait.
SIZES = ((10, 2_000), (1_000, 2_000), (10_000, 10_000), (100_000, 100_000), (10, 100_000))
#: Enough for some seconds of steady work.
TASKS = 4_000
#: celery-ranch takes many times as long for each.
THEIR_TASKS = 1_000
#: From `ranch.md`, section 5.
MOST_SUBMIT_RATIO = 1.35
MOST_CLAIM_GROWTH = 1.3
LEAST_THROUGHPUT = 0.85

QUEUE = queue_of("", "celery")

#: Seconds without a body after which those that are left are taken for lost.
LOST_AFTER = 5.0

#: The worker's application: no results, no log of each task. A body writes one byte, by which it is counted.
APP = """
import os
from celery import Celery
from celery_ranch import lru_task
app = Celery("bench", broker=os.environ["BENCH_URL"])
app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=4, broker_connection_retry_on_startup=True)
ran = os.open(os.environ["BENCH_RAN"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
@app.task
def plain(): os.write(ran, b".")
@lru_task(app)
def fair(): os.write(ran, b".")
"""


#: Runs under the other Python: its `lru_delay()` as a ratio to plain `delay()`.
THEIR_SUBMIT = """
import sys, time
from statistics import median
import bench_app as app
def span(call, *args):
    start = time.perf_counter_ns()
    call(*args)
    return time.perf_counter_ns() - start
app.plain.delay()
app.fair.lru_delay("c0")
pairs = [(span(app.plain.delay), span(app.fair.lru_delay, f"c{n % 100}")) for n in range(200)]
print(median(fair for _, fair in pairs) / median(plain for plain, _ in pairs))
"""


def tables() -> Iterator[Table]:
    """All tables of ranch."""
    with LocalServer() as server, tempfile.TemporaryDirectory() as folder:
        Path(folder, "bench_app.py").write_text(APP)
        theirs = foreign_python(Path(folder), "celery-ranch==0.1.1", "celery[redis]")
        yield _submit(server.url, folder, theirs)
        yield _growth(server.url)
        yield _throughput(server.url, folder, theirs)


def _fair_call(task: Any) -> Callable[[int], Any]:
    return lambda n: task.lru_delay(f"c{n % 100}")


def _plain_call(task: Any) -> Callable[[int], Any]:
    return lambda n: task.delay()


def _submit(url: str, folder: str, theirs: Path | None) -> Table:
    table = Table(
        "ranch: `lru_delay()`, ratio to plain `delay()`",
        ["tasks waiting", "ratio", "target", "round trips", "target", "celery-ranch 0.1.1"],
        "Round trips on the wire to our Redis; the ticket is the other one, where plain Celery sends the task. "
        "celery-ranch looks through all that waits at each submit: filling it up to 100,000 takes hours.",
    )
    connect(url).flushall()
    others = [_submit_theirs(url, folder, theirs), "not measured"]
    for waiting, other in zip((0, 100_000), others, strict=True):
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
        table.add(f"{waiting:,}", *judged(ratio, MOST_SUBMIT_RATIO), *judged(trips, 1, "{:g}"), other)
    return table


def _submit_theirs(url: str, folder: str, python: Path | None) -> str:
    if python is None:
        return "not measured"
    done = subprocess.run(
        [python, "-c", THEIR_SUBMIT], env=_environment(url, folder), capture_output=True, check=True, text=True
    )
    return f"{float(done.stdout):.2f}"


def _growth(url: str) -> Table:
    table = Table(
        "ranch: one claim that settles the task before, by the number of clients",
        ["clients", "tasks waiting", "server time", "ratio to the first", "target", "round trips", "target"],
        picture=("ranch-claim", "times the first"),
        bars={"ratio to the first": "toolkit"},
        labels=2,
    )
    base = 0.0
    for clients, tasks in SIZES:
        client = connect(url)
        client.flushall()
        backlog = Backlog(client, KeySpace("ranch"))
        _fill(backlog, clients=clients, tasks=tasks)
        with TcpProxy(url) as proxy:
            through = Backlog(connect(proxy.url), KeySpace("ranch"))
            trips = round_trips(proxy, Operation("seen", _Claims(through)))
            claim = Operation("claim", _Claims(backlog))
            spent = min(server_microseconds(client, claim) for _ in range(3))
        base = base or spent
        table.add(
            f"{clients:,}",
            f"{tasks:,}",
            f"{spent:.0f} us",
            *judged(spent / base, MOST_CLAIM_GROWTH),
            *judged(trips, 1, "{:g}"),
        )
    return table


def _throughput(url: str, folder: str, theirs: Path | None) -> Table:
    table = Table(
        "ranch: tasks per second of one worker (prefork, 2 processes) that do nothing, ratio to plain Celery",
        ["", "bodies/s", "ratio", "target", "ran"],
        "Each has all its tasks waiting when the worker begins; alternating, the best of three each. "
        "Bodies are counted, not messages.",
    )
    python = Path(sys.executable)
    best = {"plain": (0.0, 0), "fair": (0.0, 0)}
    for _ in range(3):
        for name in best:
            best[name] = max(best[name], _rate(url, folder, python, name, TASKS))
    (plain, plain_ran), (fair, fair_ran) = best["plain"], best["fair"]
    table.add("plain Celery", f"{plain:.0f}", "1", "-", f"{plain_ran} of {TASKS}")
    ratio = fair / plain
    shown = f"{ratio:.2f}" if ratio >= LEAST_THROUGHPUT else f"**{ratio:.2f}** (missed)"
    table.add("ranch", f"{fair:.0f}", shown, f">= {LEAST_THROUGHPUT}", f"{fair_ran} of {TASKS}")
    if theirs is None:
        table.add("celery-ranch 0.1.1", "not measured", "-", "-", "-")
    else:
        other, ran = _rate(url, folder, theirs, "fair", THEIR_TASKS)
        table.add("celery-ranch 0.1.1", f"{other:.0f}", f"{other / plain:.2f}", "-", f"{ran} of {THEIR_TASKS}")
    return table


def _rate(url: str, folder: str, python: Path, name: str, tasks: int) -> tuple[float, int]:
    """Bodies per second, and how many ran."""
    connect(url).flushall()
    environment = _environment(url, folder)
    bodies = Path(environment["BENCH_RAN"])
    call = "app.plain.delay()" if name == "plain" else "app.fair.lru_delay(f'c{n % 50}')"
    send = f"import bench_app as app\nfor n in range({tasks}): {call}"
    subprocess.run([python, "-c", send], env=environment, check=True)
    bodies.write_bytes(b"")
    command = [str(python), "-m", "celery", "-A", "bench_app", "worker", "-c", "2", "-l", "ERROR"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    worker = subprocess.Popen([*command, *quiet], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def ran() -> int:
        return bodies.stat().st_size

    try:
        # From the first tenth to the last: starting is not what is measured.
        eventually(lambda: ran() >= tasks * 0.1, timeout=60, interval=0.002)
        before, start = ran(), time.perf_counter()
        seen, last = before, start
        while seen < tasks and time.perf_counter() - last < LOST_AFTER:
            if (now := ran()) > seen:
                seen, last = now, time.perf_counter()
            time.sleep(0.002)
        return (seen - before) / (last - start), seen
    finally:
        worker.terminate()
        worker.wait()


def _environment(url: str, folder: str) -> dict[str, str]:
    ran = str(Path(folder, "ran"))
    return {**os.environ, "PYTHONPATH": folder, "BENCH_URL": url, "BENCH_RAN": ran, "C_FORCE_ROOT": "1"}


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
