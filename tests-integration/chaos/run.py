"""The chaos run: real workers, kills, freezes, forgotten scripts and cut connections; then the checker's verdict.

``python tests-integration/chaos/run.py --tasks 2000 --kills-per-minute 20``. The seed is printed; what the tasks did is
kept in files outside Redis, and the verdict rests on these alone. Exit code 1: a promise was broken. With
``--fault NAME`` it runs with that fault of `plants` and has to end red.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import redis  # noqa: E402  # the path of our own modules comes first
from celery import chain  # noqa: E402
from checker import judge  # noqa: E402
from kombu.exceptions import OperationalError  # noqa: E402
from line import line  # noqa: E402
from plants import PLANTS  # noqa: E402

from celery_heimdall import inspection  # noqa: E402
from celery_heimdall.store import all_stores  # noqa: E402
from celery_ranch import audit  # noqa: E402
from celery_showcase_presets.dead_letters import dead_letters_of  # noqa: E402
from celery_toolkit_core.local_server import LocalServer  # noqa: E402
from celery_toolkit_testkit import EventLog, WorkerProcess, log_event  # noqa: E402
from celery_toolkit_testkit.events import PATH_VARIABLE  # noqa: E402

JITTER = 0.5
#: How much of all that is submitted is of each kind, unless the command line says otherwise.
SHARES = {"fair": 8, "single": 5, "limited": 2, "stumbling": 2, "chain": 3}


class Chaos:
    """One run in one scratch folder.

    Args:
        options: The command line.
        folder: For logs.
        broker: The server that carries messages and state.
        url: Of the line by which the workers reach it.
    """

    def __init__(self, options: argparse.Namespace, folder: Path, broker: LocalServer, url: str) -> None:
        self.options = options
        self.folder = folder
        self.random = random.Random(options.seed)
        self.server = broker
        self.client = redis.Redis.from_url(broker.url, socket_timeout=5)
        self.url = url
        self.events = EventLog(folder / "events.jsonl")
        self.submitted: list[dict[str, object]] = []
        self.workers: list[WorkerProcess] = []
        self.stopped: list[tuple[float, list[int]]] = []
        self.started = 0
        self.ambiguous = 0
        self.over = threading.Event()

    def start_worker(self) -> None:
        """One more worker, which connects through the proxy."""
        self.started += 1
        worker = WorkerProcess(
            "chaos_app",
            self.folder / f"worker-{self.started}.log",
            concurrency=2,
            name=f"w{self.started}",
            path=[HERE],
            env={**self.environment(self.url), PATH_VARIABLE: str(self.events.path)},
            loglevel="WARNING",
        )
        self.workers.append(worker)

    def environment(self, url: str) -> dict[str, str]:
        """What the application reads."""
        state = dict.fromkeys(("CHAOS_BROKER", "CHAOS_BACKEND", "CHAOS_STATE"), url)
        return {**state, "CHAOS_FAULT": self.options.fault or "", "C_FORCE_ROOT": "1"}

    def submit(self) -> None:
        """Send all tasks, spread over the run, from this process; note what was accepted."""
        pace = 0.6 * self.options.seconds / self.options.tasks
        shares = self.options.shares
        for number in range(self.options.tasks):
            kind = self.random.choices(list(shares), list(shares.values()))[0]
            key = f"k{self.random.randrange(self.options.keys)}"
            self.submitted += self.send_chain(key, number) if kind == "chain" else self.send(kind, key, number)
            time.sleep(pace)

    def send(self, kind: str, key: str, number: int) -> list[dict[str, object]]:
        """Send one task; nothing when it is a duplicate, or when nobody can say whether it was sent."""
        import chaos_app

        kwargs: dict[str, Any] = {"key": key, "number": number}
        if kind in ("fair", "single") and self.random.randrange(self.options.long_every) == 0:
            kwargs["seconds"] = chaos_app.LONG
        task = getattr(chaos_app, kind)
        # A caller's own id makes a duplicate join its holder under that id; here it shall be turned away.
        task_id = None if kind == "single" else f"{kind}-{number}"
        args = (key,) if kind == "single" else ()
        if args:
            del kwargs["key"]
        result = self.insist(lambda: task.apply_async(args, kwargs, task_id=task_id, lru_key=key), task_id is not None)
        if result is None or getattr(result, "deduplicated", False):
            return []
        return [{"id": result.id, "kind": kind, "key": key, "runs": 2 if kind == "stumbling" else 1}]

    def send_chain(self, key: str, number: int) -> list[dict[str, object]]:
        """Send a chain from the heavy preset to the light one, both fair."""
        import chaos_app

        ids = [f"first-{number}", f"second-{number}"]
        kwargs = {"key": key, "number": number}
        steps = chain(
            chaos_app.first.s(**kwargs).set(task_id=ids[0], lru_key=key),
            chaos_app.second.s(**kwargs).set(task_id=ids[1], lru_key=key),
        )
        self.insist(steps.apply_async, True)
        return [{"id": each, "kind": each.partition("-")[0], "key": key} for each in ids]

    def insist(self, send: Callable[[], Any], repeatable: bool) -> Any:
        """Send until it is accepted: under the same id it is one task, whether an attempt arrived or not."""
        while True:
            try:
                return send()
            except (OSError, OperationalError, redis.exceptions.RedisError):
                time.sleep(0.05)
                if not repeatable:
                    self.ambiguous += 1
                    return None

    def torment(self) -> None:
        """Do all that harms, each at its pace, until the run is over."""
        paces = {
            self.client.script_flush: 5.0,
            self.cut_somebody: 2.0,
            self.kill_somebody: per_minute(self.options.kills_per_minute),
            self.freeze_somebody: per_minute(self.options.freezes_per_minute),
            self.restart_server: per_minute(self.options.restarts_per_minute),
        }
        # Workers have to be there first.
        due = {harm: time.monotonic() + max(3.0, pace / 2) for harm, pace in paces.items()}
        while not self.over.wait(0.05):
            self.thaw()
            for harm, pace in paces.items():
                if time.monotonic() >= due[harm]:
                    with suppress(redis.exceptions.RedisError):
                        harm()
                    due[harm] = time.monotonic() + pace
        self.thaw(everybody=True)

    def cut_somebody(self) -> None:
        """Cut one connection that is not our own."""
        own = self.client.client_id()
        others = [each["id"] for each in self.client.client_list() if int(each["id"]) != own]
        if others:
            self.client.client_kill_filter(_id=self.random.choice(others))

    def kill_somebody(self) -> None:
        """SIGKILL to a worker with all its children, or to one child; a killed worker is replaced."""
        worker = self.random.choice(self.workers)
        children = worker.child_pids()
        whole = self.random.random() < 0.5 or not children
        # With one fetched and one running for each child, this many tasks were in its hands at the most.
        in_flight = 2 * max(len(children), 1) + 1 if whole else 2
        victims = [worker.pid, *children] if whole else [self.random.choice(children)]
        signal_all(victims, signal.SIGKILL)
        log_event(what="kill", pids=victims, in_flight=in_flight)
        if whole:
            self.workers.remove(worker)
            worker.destroy()
            self.start_worker()

    def freeze_somebody(self) -> None:
        """SIGSTOP to a worker with all its children, for longer than a lease."""
        from chaos_app import LEASE

        worker = self.random.choice(self.workers)
        pids = [worker.pid, *worker.child_pids()]
        if signal_all(pids, signal.SIGSTOP):
            log_event(what="freeze", pids=pids, in_flight=2 * len(pids) + 1)
            self.stopped.append((time.monotonic() + 1.5 * LEASE, pids))

    def thaw(self, *, everybody: bool = False) -> None:
        """SIGCONT to those whose time has come."""
        for until, pids in tuple(self.stopped):
            if everybody or time.monotonic() >= until:
                self.stopped.remove((until, pids))
                log_event(what="thaw", pids=pids)
                signal_all(pids, signal.SIGCONT)

    def restart_server(self) -> None:
        """SIGKILL to the server, which keeps what it has acknowledged, and a new one at its place."""
        self.server.kill()
        self.server.start()
        log_event(what="restart")

    def wait_until_done(self) -> None:
        """Until every accepted task has finished once, or nothing has happened for long."""
        quiet_since, seen = time.monotonic(), -1
        while time.monotonic() - quiet_since < self.options.patience:
            ended = Counter(event["id"] for event in self.events.events(what="end"))
            if all(ended[each["id"]] >= each.get("runs", 1) for each in self.submitted):
                return
            if len(ended) != seen:
                quiet_since, seen = time.monotonic(), len(ended)
            time.sleep(0.5)

    def note_left_over(self) -> None:
        """Wait until nothing is held any more, and note what stays."""
        from chaos_app import app

        until = time.monotonic() + self.options.patience
        while (left := self.left_over()) and time.monotonic() < until:
            time.sleep(0.5)
        for text in left:
            log_event(what="left over", text=text)
        for letter in dead_letters_of(app):
            log_event(what="dead letter", text=f"{letter.id} ({letter.reason})")

    def left_over(self) -> list[str]:
        """Locks, parked tasks, backlog and messages that are still there."""
        from chaos_app import app

        left = []
        for store in all_stores(app):
            left += [f"lock {lock}" for lock in inspection.locks(store)]
            left += [f"parked {item}" for item in inspection.parked(store)]
        seen = audit(app)
        left += [
            f"ranch {name}: {seen[name]}" for name in ("scheduled", "waiting", "in_flight", "missing") if seen[name]
        ]
        for key in self.client.scan_iter(_type="list"):
            # What wakes tasks and what carries them: `queue` and `queue.wake`.
            if re.fullmatch(rb"(w\d+|heavy|light)(\.wake)?", key):
                left.append(f"{self.client.llen(key)} messages in {key.decode()}")
        return left

    def stop_torment(self, tormentor: threading.Thread) -> None:
        """Let the survivors live."""
        self.over.set()
        tormentor.join()

    def run(self) -> int:
        """All of it; the exit code."""
        began = time.monotonic()
        os.environ.update(self.environment(self.server.url))
        os.environ[PATH_VARIABLE] = str(self.events.path)
        for _ in range(self.options.workers):
            self.start_worker()
        tormentor = threading.Thread(target=self.torment, name="tormentor")
        try:
            tormentor.start()
            self.submit()
            self.wait_until_done()
            self.stop_torment(tormentor)
            self.note_left_over()
        finally:
            self.stop_torment(tormentor)
            for worker in self.workers:
                worker.destroy()
        from chaos_app import LIMIT_PER, LIMIT_TIMES

        verdict = judge(
            self.submitted,
            self.events.events(),
            now=time.monotonic(),
            limit=(LIMIT_TIMES, LIMIT_PER),
            jitter=JITTER,
            ambiguous=self.ambiguous,
        )
        print(f"seed {self.options.seed}, {time.monotonic() - began:.0f} s")
        for name, figure in verdict.figures.items():
            print(f"  {name:<24} {figure:>7}")
        for fault in verdict.faults:
            print(f"FAULT {fault}")
        if self.options.keep:
            self.keep(Path(self.options.keep))
        return 1 if verdict.faults else 0

    def keep(self, folder: Path) -> None:
        """Keep what explains a verdict: all submissions and events, the workers' logs, the server's data."""
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"submitted": self.submitted, "events": self.events.events()})
        (folder / "run.json").write_text(text, encoding="utf-8")
        for log in self.folder.glob("worker-*.log"):
            shutil.copy(log, folder)
        self.client.save()
        shutil.copy(Path(self.client.config_get("dir")["dir"]) / "dump.rdb", folder)


def shares_of(text: str) -> dict[str, int]:
    """How much of each kind, from the command line."""
    pairs = (each.split("=") for each in text.split(","))
    return {kind: int(share) for kind, share in pairs}


def per_minute(times: float) -> float:
    """Seconds between two of so many a minute."""
    return 60.0 / times if times else float("inf")


def durable(options: argparse.Namespace) -> dict[str, str]:
    """What the server needs in order to keep its data over a restart."""
    return {"appendonly": "yes", "appendfsync": "always"} if options.restarts_per_minute else {}


def signal_all(pids: list[int], number: signal.Signals) -> bool:
    """Send a signal to those of the processes that live; whether there was one."""
    met = False
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
            met = True
    return met


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--shares", type=shares_of, default=SHARES, help="such as limited=2,fair=1")
    parser.add_argument("--keys", type=int, default=8)
    parser.add_argument("--long-every", type=int, default=20, help="one in so many runs for longer than a lease")
    parser.add_argument("--seconds", type=float, default=60.0, help="over which the tasks are submitted, about")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--kills-per-minute", type=float, default=20.0)
    parser.add_argument("--freezes-per-minute", type=float, default=2.0)
    parser.add_argument("--restarts-per-minute", type=float, default=0.0, help="of the server, which keeps its data")
    parser.add_argument("--fault", choices=PLANTS, help="plant this fault; the run has to end red")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds each way between workers and Redis")
    parser.add_argument("--patience", type=float, default=30.0, help="seconds without progress until it gives up")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--keep", help="folder for submissions, events, logs and the server's data")
    options = parser.parse_args()
    print(f"chaos: {options.tasks} tasks, seed {options.seed}", flush=True)
    with (
        tempfile.TemporaryDirectory() as scratch,
        LocalServer(config=durable(options)) as broker,
        line(broker.url, options.latency) as url,
    ):
        return Chaos(options, Path(scratch), broker, url).run()


if __name__ == "__main__":
    sys.exit(main())
