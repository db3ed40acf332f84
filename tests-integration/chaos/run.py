"""The chaos run: real workers, kills at random, forgotten scripts, cut connections; then the checker's verdict.

``python tests-integration/chaos/run.py --tasks 2000 --kills-per-minute 20``. The seed is printed; what the tasks did is
kept in files outside Redis, and the verdict rests on these alone. Exit code 1: a promise was broken.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import redis  # noqa: E402  # the path of our own modules comes first
from checker import judge  # noqa: E402
from kombu.exceptions import OperationalError  # noqa: E402

from celery_toolkit_core.local_server import LocalServer  # noqa: E402
from celery_toolkit_testkit import EventLog, TcpProxy, WorkerProcess, log_event  # noqa: E402
from celery_toolkit_testkit.events import PATH_VARIABLE  # noqa: E402

JITTER = 0.5


class Chaos:
    """One run in one scratch folder.

    Args:
        options: The command line.
        folder: For logs.
        broker: The server that carries messages and state.
        proxy: What stands between the workers and the server.
    """

    def __init__(self, options: argparse.Namespace, folder: Path, broker: LocalServer, proxy: TcpProxy) -> None:
        self.options = options
        self.folder = folder
        self.random = random.Random(options.seed)
        self.client = redis.Redis.from_url(broker.url)
        self.proxy = proxy
        self.events = EventLog(folder / "events.jsonl")
        self.submitted: list[dict[str, object]] = []
        self.workers: list[WorkerProcess] = []
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
            env={**self.environment(self.proxy.url), PATH_VARIABLE: str(self.events.path)},
            loglevel="WARNING",
        )
        self.workers.append(worker)

    def environment(self, url: str) -> dict[str, str]:
        """What the application reads."""
        return {"CHAOS_BROKER": url, "CHAOS_BACKEND": url, "CHAOS_STATE": url, "C_FORCE_ROOT": "1"}

    def submit(self) -> None:
        """Send all tasks, spread over the run, from this process; note what was accepted."""
        import chaos_app

        pace = 0.6 * self.options.seconds / self.options.tasks
        for number in range(self.options.tasks):
            kind = self.random.choices(["fair", "single", "limited"], [6, 3, 1])[0]
            key = f"k{self.random.randrange(8)}"
            task = getattr(chaos_app, kind)
            result = self.send(task, kind, key, number)
            if result is not None:
                self.submitted.append({"id": result.id, "kind": kind, "key": key})
            time.sleep(pace)

    def send(self, task: Any, kind: str, key: str, number: int) -> Any:
        """Send one task; None when it is a duplicate, or when nobody can say whether it was sent."""
        # A caller's own id makes a duplicate join its holder under that id; here it shall be turned away.
        task_id = None if kind == "single" else f"{kind}-{number}"
        while True:
            try:
                result = task.apply_async((key, number), task_id=task_id, lru_key=key)
            except (OSError, OperationalError, redis.exceptions.RedisError):
                time.sleep(0.05)
                if task_id is None:
                    self.ambiguous += 1
                    return None
                # The same id again: whether the first attempt arrived or not, it is one task.
                continue
            return None if getattr(result, "deduplicated", False) else result

    def torment(self) -> None:
        """Kill, forget and cut until the run is over."""
        next_kill, next_flush, next_cut = time.monotonic() + 3.0, time.monotonic(), time.monotonic()
        while not self.over.wait(0.05):
            now = time.monotonic()
            if now >= next_flush:
                self.client.script_flush()
                next_flush = now + 5.0
            if now >= next_cut:
                self.cut_somebody()
                next_cut = now + 2.0
            if now >= next_kill:
                self.kill_somebody()
                next_kill = now + 60.0 / self.options.kills_per_minute

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
        for pid in victims:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.note_kill(victims, in_flight)
        if whole:
            self.workers.remove(worker)
            worker.destroy()
            self.start_worker()

    def note_kill(self, pids: list[int], in_flight: int) -> None:
        """Write the kill into the event log."""
        log_event(what="kill", pids=pids, in_flight=in_flight)

    def wait_until_done(self) -> None:
        """Until every accepted task has finished once, or nothing has happened for long."""
        quiet_since, seen = time.monotonic(), -1
        while time.monotonic() - quiet_since < self.options.patience:
            done = {event["id"] for event in self.events.events() if event["what"] in ("end", "turned away")}
            if all(each["id"] in done for each in self.submitted):
                return
            if len(done) != seen:
                quiet_since, seen = time.monotonic(), len(done)
            time.sleep(0.5)

    def run(self) -> int:
        """All of it; the exit code."""
        began = time.monotonic()
        os.environ.update(self.environment(self.proxy.url))
        os.environ[PATH_VARIABLE] = str(self.events.path)
        for _ in range(self.options.workers):
            self.start_worker()
        tormentor = threading.Thread(target=self.torment, name="tormentor")
        try:
            tormentor.start()
            self.submit()
            self.wait_until_done()
        finally:
            self.over.set()
            tormentor.join()
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
            print(f"  {name:<20} {figure:>7}")
        for fault in verdict.faults:
            print(f"FAULT {fault}")
        if verdict.faults and self.options.keep:
            Path(self.options.keep).write_text(
                json.dumps({"submitted": self.submitted, "events": self.events.events()}), encoding="utf-8"
            )
        return 1 if verdict.faults else 0


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=60.0, help="over which the tasks are submitted, about")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--kills-per-minute", type=float, default=20.0)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds each way between workers and Redis")
    parser.add_argument("--patience", type=float, default=30.0, help="seconds without progress until it gives up")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--keep", help="file for submissions and events of a run with faults")
    options = parser.parse_args()
    print(f"chaos: {options.tasks} tasks, seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as scratch, LocalServer() as broker:
        proxy = TcpProxy(broker.url)
        proxy.start()
        proxy.latency = options.latency
        try:
            return Chaos(options, Path(scratch), broker, proxy).run()
        finally:
            proxy.close()


if __name__ == "__main__":
    sys.exit(main())
