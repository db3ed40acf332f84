"""Many producers and workers at once, with and without kills: the long forms of what the other tests show in short."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from celery_ranch import audit
from celery_toolkit_testkit import eventually

APPS = Path(__file__).parent / "apps"
#: Tasks and kills of the long run; the environment may ask for less where the machine is shared.
TASKS, KILLS = (int(os.environ.get(name, most)) for name, most in (("RANCH_TASKS", "50000"), ("RANCH_KILLS", "400")))


@pytest.fixture
def worker(celery_worker_process):
    def start(**options):
        return celery_worker_process("ranch_apart", **options)

    return start


@pytest.fixture
def produce(celery_environment):
    """Starts `number` producers, each a process of its own, that send `each` tasks at the same time."""
    started = []

    def produce(number, each, seconds=0.0):
        code = (
            "import sys, ranch_apart; who, each, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])\n"
            "for n in range(each):\n"
            "    ranch_apart.work.lru_apply_async(f'c{n % 7}', (f'{who}-{n}', seconds), ignore_result=True)"
        )
        path = os.pathsep.join([str(APPS), os.environ.get("PYTHONPATH", "")])
        for index in range(number):
            command = [sys.executable, "-c", code, f"p{index}", str(each), str(seconds)]
            started.append(subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}))
        return started

    yield produce
    for each in started:
        each.kill()
        each.wait()


def ended(app, count, timeout):
    """Wait until the backlog says that all are done; the files of the tasks are read once, afterwards."""

    def check():
        seen = audit(app)
        assert seen["missing"] == 0
        return seen["submitted"] == count and seen["waiting"] == seen["in_flight"] == 0 and seen

    return eventually(check, timeout=timeout, interval=0.5)


@pytest.mark.long
def test_ten_thousand_tasks_without_faults(celery_app_module, worker, produce, event_log):
    """4 producers, 4 workers of 4 processes: 0 lost, 0 twice. celery-ranch 0.1.1: 211 and 153 of 400."""
    app = celery_app_module("ranch_apart").app
    workers = [worker(concurrency=4, loglevel="INFO") for _ in range(4)]
    begin = time.monotonic()
    assert [each.wait(timeout=900) for each in produce(4, 2500)] == [0] * 4
    ended(app, 10_000, timeout=900)
    print(f"10,000 tasks in {time.monotonic() - begin:.0f} s")
    runs = Counter(each["text"] for each in event_log.events(what="end"))
    assert len(runs) == 10_000
    assert set(runs.values()) == {1}
    assert all(each.is_running for each in workers)


@pytest.mark.parametrize(
    ("tasks", "kills"),
    [(400, 6), pytest.param(TASKS, KILLS, marks=pytest.mark.long)],
    ids=["short", "long"],
)
def test_kills_latency_and_cuts_lose_nothing(
    celery_app_module, worker, produce, event_log, tcp_proxy, monkeypatch, tasks, kills
):
    """SIGKILL of workers and children, late acknowledgement, a slow network that is cut.

    Lost: 0. What ran again was in flight at a kill.
    """
    proxy = tcp_proxy()
    proxy.latency = 0.001
    app = celery_app_module("ranch_apart").app  # looks at the servers without the proxy
    for name in ("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"):
        monkeypatch.setenv(name, proxy.url)
    chance = random.Random(tasks)
    options = {"concurrency": 2, "env": {"RANCH_LEASE": "3"}, "wait": False}
    workers = [worker(**options) for _ in range(3)]
    producers = produce(2, tasks // 2, seconds=0.002)
    in_flight, killed = 0, 0
    started, budget = time.monotonic(), 120 + tasks / 10

    while killed < kills and time.monotonic() - started < budget:
        due = tasks * (killed + 1) / (kills + 2)
        eventually(lambda due=due: audit(app)["done"] >= due, timeout=budget, interval=0.1)
        place = chance.randrange(3)
        children = workers[place].child_pids()
        if killed % 2 and children:
            with suppress(ProcessLookupError):
                os.kill(chance.choice(children), signal.SIGKILL)
            in_flight += 1
        else:
            workers[place].kill()
            workers[place] = worker(**options)
            in_flight += 2
        killed += 1
        if killed % 3 == 0:
            proxy.cut()  # bodies run on over that, and their tickets' second delivery does nothing
    assert [each.wait(timeout=300) for each in producers] == [0, 0]
    seen = ended(app, tasks, timeout=300)
    runs = Counter(each["text"] for each in event_log.events(what="end"))
    begun = sum(Counter(each["text"] for each in event_log.events(what="start")).values())
    taken = time.monotonic() - started
    print(f"{tasks} tasks, {killed} kills in {taken:.0f} s:", end=" ")
    print(f"lost {tasks - len(runs)}, begun again {begun - tasks}, dead {seen['dead']}")
    assert killed == kills
    assert len(runs) == tasks
    assert seen["done"] == tasks
    assert begun - tasks <= in_flight
