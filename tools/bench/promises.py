"""What each package keeps when limits are reached and workers die: ours beside the older ones, with real workers.

Each has its defaults, an environment of its own, a server of its own, and the same tasks. What a body did stands in a
file outside Redis.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from measure import Chart, Table, foreign_python

from celery_toolkit_core.bound_process import start_bound
from celery_toolkit_core.local_server import LocalServer
from celery_toolkit_testkit import TcpProxy
from celery_toolkit_testkit.processes import session_members

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

#: Of the limit: 10 starts in any second.
TIMES, LIMITED = 10, 100
#: Seconds each way between all processes and Redis, while the limit is tried.
LATENCY = 0.005
#: Tasks that are there when a worker is killed.
TASKS = 80
#: Seconds without a sign of a task, after which those that have not ended are taken for lost. Our leases are 30 s.
SILENCE = 45.0
#: Seconds for which a dead worker's key is asked for.
ASKING = 50.0
#: Tasks of the client that came first.
BULK = 200

#: What all applications begin with.
HEAD = """
import json, os, sys, time
from celery import Celery
URL = os.environ["BENCH_URL"]
app = Celery("bench_app", broker=URL, backend=URL)
app.conf.broker_connection_retry_on_startup = True
def log(what, number):
    line = json.dumps({"at": time.time(), "what": what, "number": number}) + "\\n"
    file = os.open(os.environ["BENCH_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line.encode())
    os.close(file)
"""


@dataclass(frozen=True)
class Contender:
    """One way to do it.

    Attributes:
        label: As the picture names it; ours contain "toolkit".
        code: The rest of the application: a task ``job`` and ``submit(number)``.
        packages: What is installed beside Celery, in an environment of its own; nothing for ours and plain Celery.
        queues: Each worker consumes the queue of its own name.
    """

    label: str
    code: str
    packages: Sequence[str] = ()
    queues: bool = False


@dataclass
class Stage:
    """The server, the environment and the workers of one contender."""

    contender: Contender
    latency: float = 0.0
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __enter__(self) -> Stage:
        with ExitStack() as stack:
            self.folder = Path(stack.enter_context(TemporaryDirectory()))
            url = stack.enter_context(LocalServer()).url
            if self.latency:
                proxy = stack.enter_context(TcpProxy(url))
                proxy.latency = self.latency
                url = proxy.url
            (self.folder / "bench_app.py").write_text(HEAD + self.contender.code)
            self.events_path = self.folder / "events"
            self.environment = {
                **os.environ,
                "PYTHONPATH": str(self.folder),
                # celery-chain-router keeps its workers in a file at home.
                "HOME": str(self.folder),
                "BENCH_URL": url,
                "BENCH_LOG": str(self.events_path),
                "C_FORCE_ROOT": "1",
            }
            wanted = self.contender.packages
            self.python = foreign_python(self.folder, *wanted, "celery[redis]") if wanted else Path(sys.executable)
            stack.callback(self._end)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self, *names: str, concurrency: int = 2) -> None:
        """Start workers and return when they are ready."""
        for name in names:
            command = [str(self.python), "-m", "celery", "-A", "bench_app", "worker", "-n", f"{name}@bench"]
            command += ["-c", str(concurrency), "-l", "INFO", "--without-gossip", "--without-mingle"]
            command += ["-Q", name] if self.contender.queues else []
            with self._log(name).open("wb") as log:
                self.workers[name] = start_bound(command, env=self.environment, stdout=log, stderr=log)
        self.wait(lambda: all(b" ready." in self._log(name).read_bytes() for name in names), "workers to be ready")

    def kill(self, name: str) -> None:
        """``kill -9`` a worker and its processes."""
        worker = self.workers.pop(name)
        for pid in session_members(worker.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        worker.wait()

    def run(self, code: str, timeout: float = 240.0) -> str:
        """Run a program that has the application as ``app``; what it printed."""
        command = [str(self.python), "-c", f"import time, bench_app as app\n{code}"]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=timeout)
        if done.returncode:
            raise RuntimeError(f"{self.contender.label}: {done.stderr}")
        return done.stdout

    def events(self, what: str) -> list[dict[str, Any]]:
        """What the bodies have noted."""
        lines = self.events_path.read_text().splitlines() if self.events_path.exists() else []
        return [event for event in map(json.loads, lines) if event["what"] == what]

    def wait(self, condition: Callable[[], bool], what: str, timeout: float = 120.0) -> None:
        """Poll until so."""
        if not self.until(condition, timeout):
            logs = "\n".join(self._log(name).read_text(errors="replace")[-2000:] for name in self.workers)
            raise RuntimeError(f"{self.contender.label}: waited in vain for {what}\n{logs}")

    def until(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Poll until so, or until the time is over."""
        end = time.monotonic() + timeout
        while not (met := condition()) and time.monotonic() < end:
            time.sleep(0.05)
        return met

    def await_starts(self, count: int, timeout: float) -> bool:
        """Wait until so many bodies have begun; whether they have."""
        return self.until(lambda: len(self.events("start")) >= count, timeout)

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _end(self) -> None:
        for name in tuple(self.workers):
            self.kill(name)


def tables() -> Iterator[Table | Chart]:
    """All that is promised."""
    yield from _limit()
    # These mostly wait.
    with ThreadPoolExecutor(len(LOSSES) + len(KEYS)) as pool:
        lost, asked = pool.map(_lose, LOSSES), pool.map(_ask, KEYS)
        yield from _losses(list(lost))
        yield from _keys(list(asked))
    yield from _places()


LIMIT = (
    Contender(
        "Celery's own rate_limit",
        '@app.task(rate_limit="10/s", ignore_result=True)\ndef job(number): log("start", number)\nsubmit = job.delay\n',
    ),
    Contender(
        "celery-heimdall 1.0",
        """
from celery_heimdall import HeimdallTask
limit = {"times": 10, "per": 1, "key": lambda args, kwargs: "jobs"}
@app.task(base=HeimdallTask, heimdall=limit, ignore_result=True)
def job(number): log("start", number)
submit = job.delay
""",
        ("celery-heimdall==1.0.*",),
    ),
    Contender(
        "limits, retry when refused",
        """
from limits import RateLimitItemPerSecond
from limits.storage import storage_from_string
from limits.strategies import MovingWindowRateLimiter
limiter, limit = MovingWindowRateLimiter(storage_from_string(URL)), RateLimitItemPerSecond(10)
@app.task(bind=True, max_retries=None, ignore_result=True)
def job(self, number):
    if not limiter.hit(limit, "jobs"):
        again = limiter.get_window_stats(limit, "jobs").reset_time - time.time()
        raise self.retry(countdown=max(0.1, again))
    log("start", number)
submit = job.delay
""",
        ("limits",),
    ),
    Contender(
        "celery-toolkit-heimdall",
        """
from celery_heimdall import HeimdallTask
@app.task(base=HeimdallTask, heimdall={"times": 10, "per": 1}, ignore_result=True)
def job(number): log("start", number)
submit = job.delay
""",
    ),
)


def _limit() -> Iterator[Table | Chart]:
    table = Table(
        f"{LIMITED} tasks under a limit of {TIMES} in any second, 4 workers x 2, {LATENCY * 1000:g} ms to Redis",
        ["", "most starts in 0.9 s", "seconds from first to last", "not run"],
        "By the clock of the bodies, which is read a moment after the decision: hence 0.9 s. The ideal is 9 s.",
    )
    densest: dict[str, float | None] = {}
    for contender in LIMIT:
        with Stage(contender, LATENCY) as stage:
            if stage.python is None:
                densest[contender.label] = None
                table.add(contender.label, *["not measured"] * 3)
                continue
            stage.run(f"for n in range({LIMITED}): app.submit(n)")
            stage.start("a", "b", "c", "d")
            stage.await_starts(LIMITED, 60.0)
            at = sorted(event["at"] for event in stage.events("start"))
        most = max(sum(first <= other < first + 0.9 for other in at) for first in at)
        densest[contender.label] = most
        table.add(contender.label, str(most), f"{at[-1] - at[0]:.1f}", str(LIMITED - len(at)))
    yield table
    title = f"Most starts within 0.9 s under a limit of {TIMES} in any second"
    yield Chart("limit", title, f"starts; the limit is {TIMES}", densest)


BODY = 'def job(number, customer=None):\n    log("start", number)\n    time.sleep(1)\n    log("end", number)\n'
LATE = "app.conf.update(task_acks_late=True, task_reject_on_worker_lost=True, task_ignore_result=True)\n"
FAIR = f"from celery_ranch import lru_task\n{LATE}@lru_task(app)\n{BODY}"
FAIR += 'submit = lambda number: job.lru_delay(f"c{number % 10}", number)\n'
KEYED = f"@app.task\n{BODY}" + 'submit = lambda number: job.delay(number, customer=f"c{number}")\n'
THEIR_ROUTER = """
from celery_chain_router import ChainRouter
app.conf.task_routes = router = ChainRouter(routing_key="customer")
for name in "ab": router.register_worker(name)
"""
OUR_ROUTER = """
from celery_chain_router import ChainRouter
app.conf.task_routes = router = ChainRouter(routing_key="customer")
if not sys.argv[0].endswith("celery/__main__.py"):
    router.attach(app)
    end = time.monotonic() + 60
    while len(router.worker_positions) < 2 and time.monotonic() < end: time.sleep(0.1)
"""
LOSSES = (
    Contender("Celery", f"app.conf.task_ignore_result = True\n@app.task\n{BODY}submit = job.delay\n"),
    Contender("Celery, late acknowledgement", f"{LATE}@app.task\n{BODY}submit = job.delay\n"),
    Contender("celery-ranch 0.1.1", FAIR, ("celery-ranch==0.1.1",)),
    Contender("celery-toolkit-ranch", FAIR),
    Contender("celery-chain-router 0.2", THEIR_ROUTER + LATE + KEYED, ("celery-chain-router==0.2.*",), queues=True),
    Contender("celery-toolkit-chain-router", OUR_ROUTER + LATE + KEYED),
)


def _losses(outcomes: Sequence[tuple[int, int] | None]) -> Iterator[Table | Chart]:
    table = Table(
        f"{TASKS} tasks of a second, two workers x 2, one is killed (kill -9) after 12 of them",
        ["", f"not ended after {SILENCE:g} s of silence", "begun again"],
        "What a dead worker had fetched stays with the broker for its visibility timeout, an hour by default; what its "
        "own queue holds, until somebody starts it again.",
    )
    lost: dict[str, float | None] = {}
    for contender, found in zip(LOSSES, outcomes, strict=True):
        lost[contender.label] = found[0] if found else None
        table.add(contender.label, *(map(str, found) if found else ["not measured"] * 2))
    yield table
    yield Chart("losses", "Tasks that had not ended a while after a worker was killed", f"of {TASKS} tasks", lost)


def _lose(contender: Contender) -> tuple[int, int] | None:
    with Stage(contender) as stage:
        if stage.python is None:
            return None
        stage.start("a", "b")
        with ThreadPoolExecutor(1) as pool:
            # Beside the workers: on a slow machine they would be done before the last is sent.
            sending = pool.submit(stage.run, f"for n in range({TASKS}): app.submit(n)")
            stage.wait(lambda: len(stage.events("end")) >= 12, "12 tasks")
            stage.kill("a")
            sending.result()
        quiet_since = time.monotonic()
        seen = 0
        while (ended := len({event["number"] for event in stage.events("end")})) < TASKS:
            if ended > seen:
                seen, quiet_since = ended, time.monotonic()
            if time.monotonic() - quiet_since > SILENCE:
                break
            time.sleep(0.2)
        starts = [event["number"] for event in stage.events("start")]
        return TASKS - ended, len(starts) - len(set(starts))


LONG = 'def job(number):\n    log("start", number)\n    time.sleep(600)\n'
KEYS = (
    Contender(
        "celery-heimdall 1.0",
        "from celery_heimdall import HeimdallTask\n"
        f'@app.task(base=HeimdallTask, heimdall={{"unique": True}})\n{LONG}submit = job.delay\n',
        ("celery-heimdall==1.0.*",),
    ),
    Contender(
        "celery-once",
        "from celery_once import QueueOnce\n"
        'settings = {"url": URL, "default_timeout": 3600}\n'
        'app.conf.ONCE = {"backend": "celery_once.backends.Redis", "settings": settings}\n'
        f'@app.task(base=QueueOnce, once={{"graceful": True}})\n{LONG}submit = job.delay\n',
        ("celery-once",),
    ),
    Contender(
        "celery-singleton",
        f"from celery_singleton import Singleton\n@app.task(base=Singleton)\n{LONG}submit = job.delay\n",
        ("celery-singleton",),
    ),
    Contender(
        "celery-toolkit-heimdall",
        "from celery_heimdall import HeimdallTask\n"
        f'@app.task(base=HeimdallTask, heimdall={{"unique": True}})\n{LONG}submit = job.delay\n',
    ),
)
#: Prints after how many seconds a call with the dead task's arguments is accepted.
ASK = f"""
first, killed = FIRST, KILLED
while time.time() - killed < {ASKING}:
    if app.submit(1).id not in (None, first):
        print(time.time() - killed)
        break
    time.sleep(0.5)
"""


def _keys(outcomes: Sequence[float | None]) -> Iterator[Table | Chart]:
    table = Table(
        "A unique task's worker is killed: when the same call is accepted again",
        ["", "after"],
        "Each with its defaults; another worker runs on. An hour is the lifetime of the older packages' keys, but "
        "celery-singleton's have none.",
    )
    for contender, seconds in zip(KEYS, outcomes, strict=True):
        never = seconds is not None and seconds >= ASKING
        shown = f"not within {ASKING:g} s" if never else "not measured" if seconds is None else f"{seconds:.0f} s"
        table.add(contender.label, shown)
    yield table


def _ask(contender: Contender) -> float | None:
    with Stage(contender) as stage:
        if stage.python is None:
            return None
        stage.start("a", concurrency=1)
        first = stage.run("print(app.submit(1).id)").strip()
        stage.wait(lambda: bool(stage.events("start")), "the task to start")
        stage.start("b", concurrency=1)
        killed = time.time()
        stage.kill("a")
        shown = stage.run(ASK.replace("FIRST", repr(first)).replace("KILLED", repr(killed)))
        return float(shown) if shown else ASKING


PLACES = (
    Contender(
        "Celery",
        'app.conf.task_ignore_result = True\n@app.task\ndef job(number): log("start", number)\n'
        "submit = lambda client, number: job.delay(number)\n",
    ),
    *(
        Contender(
            label,
            "from celery_ranch import lru_task\napp.conf.task_ignore_result = True\n@lru_task(app)\n"
            'def job(number): log("start", number)\nsubmit = job.lru_delay\n',
            packages,
        )
        for label, packages in (("celery-ranch 0.1.1", ("celery-ranch==0.1.1",)), ("celery-toolkit-ranch", ()))
    ),
)


def _places() -> Iterator[Table | Chart]:
    with ThreadPoolExecutor() as pool:
        found = dict(zip([each.label for each in PLACES], pool.map(_place, PLACES), strict=True))
    title = f"Place of a client's only task behind {BULK} of another's"
    yield Chart("place", title, "place in the order of starts", found, "One worker x 1, started when all are waiting.")


def _place(contender: Contender) -> float | None:
    with Stage(contender) as stage:
        if stage.python is None:
            return None
        stage.run(f'for n in range({BULK}): app.submit("bulk", n)\napp.submit("small", -1)')
        stage.start("a", concurrency=1)
        stage.wait(lambda: any(event["number"] == -1 for event in stage.events("start")), "the small task", 240.0)
        return 1.0 + [event["number"] for event in stage.events("start")].index(-1)
