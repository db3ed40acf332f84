from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import Popen

import pytest

from celery_toolkit_core.bound_process import start_bound
from celery_toolkit_testkit import EventLog, eventually

# Long enough that a slow machine's delays are small beside it.
INTERVAL = 2.0


@pytest.fixture
def candidate(redis_url: str, event_log: EventLog) -> Iterator[Callable[[], Popen[bytes]]]:
    started: list[Popen[bytes]] = []

    def start() -> Popen[bytes]:
        script = Path(__file__).parent / "apps" / "office.py"
        started.append(start_bound([sys.executable, str(script), redis_url, str(INTERVAL)]))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_one_process_of_all_runs_the_job_and_another_follows_within_two_intervals_of_a_kill(
    candidate: Callable[[], Popen[bytes]], event_log: EventLog
) -> None:
    processes = {process.pid: process for process in (candidate(), candidate(), candidate())}
    swept = event_log.wait_for(3, swept=True)
    first = swept[0]["pid"]
    assert {event["pid"] for event in swept} == {first}
    processes[first].send_signal(signal.SIGKILL)
    processes[first].wait()
    last = event_log.events(swept=True, pid=first)[-1]["at"]
    following = eventually(lambda: [e for e in event_log.events(swept=True) if e["pid"] != first], 60)
    # Its term ends 1.5 intervals after it last took office, a moment before that run: half an interval is to spare.
    assert INTERVAL < following[0]["at"] - last <= 2 * INTERVAL
    assert len({event["pid"] for event in following}) == 1
