from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from celery_toolkit_core.errors import InvalidParameter, RedisUnavailable
from celery_toolkit_core.keeper import Elected, Keeper
from celery_toolkit_core.leases import Held, Lease
from celery_toolkit_testkit import eventually


@pytest.fixture
def keeper() -> Iterator[Keeper]:
    keeper = Keeper("test-keeper")
    yield keeper
    assert keeper.stop(30)


def threads(name: str = "test-keeper") -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


class Office:
    """What `Elected` needs of `Leases`, in memory and by this machine's clock."""

    def __init__(self) -> None:
        self.token = ""
        self.end = 0.0

    def acquire(self, name: str, token: str, *, ttl: float) -> Lease | Held:
        now = time.monotonic()
        if self.end > now and self.token != token:
            return Held(name, self.token, self.end - now)
        self.token, self.end = token, now + ttl
        return Lease(name, token, 1, ttl)

    def release(self, name: str, token: str) -> bool:
        if self.token == token:
            self.end = 0.0
        return self.token == token


def test_a_job_runs_after_each_interval(keeper: Keeper) -> None:
    runs: list[float] = []
    keeper.every(0.02, lambda: runs.append(time.monotonic()))
    began = time.monotonic()
    keeper.start()
    eventually(lambda: len(runs) >= 3)
    assert runs[0] >= began + 0.01


def test_a_job_can_run_at_once(keeper: Keeper) -> None:
    ran = threading.Event()
    keeper.every(3600, ran.set, at_once=True)
    keeper.start()
    assert ran.wait(30)


def test_starting_twice_makes_one_thread(keeper: Keeper) -> None:
    keeper.start()
    keeper.start()
    assert len(threads()) == 1
    assert threads()[0].daemon


def test_it_starts_again_after_a_stop(keeper: Keeper) -> None:
    runs: list[int] = []
    keeper.every(0.01, lambda: runs.append(1))
    keeper.start()
    eventually(lambda: runs)
    assert keeper.stop(30)
    assert not threads()
    count = len(runs)
    keeper.start()
    eventually(lambda: len(runs) > count)


def test_a_job_that_raises_is_logged_and_tried_again(keeper: Keeper, caplog: pytest.LogCaptureFixture) -> None:
    runs: list[int] = []

    def fail_twice() -> None:
        runs.append(1)
        if len(runs) <= 2:
            raise KeyError("on purpose")

    with caplog.at_level(logging.INFO):
        keeper.every(0.01, fail_twice)
        keeper.start()
        eventually(lambda: "keeper_job_recovered" in caplog.text)
    assert caplog.text.count("keeper_job_failed") == 2
    assert caplog.text.count("Traceback") == 1  # a server that is away for an hour does not fill the log
    assert len(runs) >= 3


def test_a_server_that_is_away_is_one_line(keeper: Keeper, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise RedisUnavailable("Redis at localhost:6379/0 cannot be reached")

    keeper.every(0.01, fail)
    keeper.start()
    eventually(lambda: caplog.text.count("keeper_job_failed") >= 2)
    assert "Traceback" not in caplog.text


def test_an_outage_does_not_fill_the_log(keeper: Keeper, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise RedisUnavailable("Redis at localhost:6379/0 cannot be reached")

    job = keeper.every(10, fail)
    for _ in range(20):
        job.perform()
    told = [record.failures for record in caplog.records if "keeper_job_failed" in record.message]
    assert told == [1, 2, 4, 6, 8, 12, 16, 18]  # powers of two, and one each minute


def test_a_failing_job_does_not_keep_the_others_from_running(keeper: Keeper) -> None:
    runs: list[int] = []
    keeper.every(0.01, lambda: 1 / 0)
    keeper.every(0.01, lambda: runs.append(1))
    keeper.start()
    eventually(lambda: len(runs) >= 3)


def test_delays_do_not_add_up_and_missed_runs_are_not_made_up_for(keeper: Keeper) -> None:
    """The moments lie on a grid that the first one sets, however long a run takes."""
    now = time.monotonic()
    job = keeper.every(10, lambda: None)
    due = job._due
    job.plan(due + 0.5)
    assert job._due == pytest.approx(due + 10)
    job.plan(due + 35)
    assert job._due == pytest.approx(due + 40)
    assert due == pytest.approx(now + 10, abs=5)


def test_what_came_due_while_it_stood_still_runs_once(keeper: Keeper) -> None:
    runs: list[int] = []
    job = keeper.every(1000, lambda: runs.append(1))
    job._due = time.monotonic() - 5000
    keeper.start()
    eventually(lambda: runs)
    assert job._due > time.monotonic()
    assert runs == [1]


def test_a_job_can_be_hurried_and_cancelled(keeper: Keeper) -> None:
    runs: list[int] = []
    job = keeper.every(3600, lambda: runs.append(1))
    keeper.start()
    job.soon(0.01)
    eventually(lambda: runs)
    job.cancel()
    job.cancel()
    job.soon()
    keeper.every(0.01, lambda: runs.append(2))
    eventually(lambda: 2 in runs)
    assert runs.count(1) == 1


def test_a_job_may_stop_its_own_keeper() -> None:
    keeper = Keeper("suicidal")
    keeper.every(0.01, keeper.stop)
    keeper.start()
    eventually(lambda: not keeper.is_running and not threads("suicidal"))


def test_stop_waits_for_the_job_in_progress_but_not_for_ever() -> None:
    keeper = Keeper("busy")
    entered, leave = threading.Event(), threading.Event()

    def wait() -> None:
        entered.set()
        leave.wait(60)

    keeper.every(3600, wait, at_once=True)
    keeper.start()
    assert entered.wait(30)
    assert keeper.stop(0.01) is False
    leave.set()
    eventually(lambda: not threads("busy"))


@pytest.mark.parametrize("interval", [0, -1, math.nan, math.inf, "1", True, None])
def test_an_impossible_interval_is_refused(interval: Any) -> None:
    with pytest.raises(InvalidParameter):
        Keeper("never").every(interval, print)


def test_one_of_all_is_elected_and_another_follows_when_its_term_has_ended() -> None:
    interval = 0.2
    office = Office()
    runs: list[tuple[str, float]] = []
    keepers = [Keeper(f"k{number}") for number in range(3)]
    for keeper in keepers:
        elected = Elected(office, "sweeper")  # type: ignore[arg-type]  # a stand-in
        keeper.every(interval, lambda name=keeper.name: runs.append((name, time.monotonic())), elected=elected)
        keeper.start()
    eventually(lambda: len(runs) >= 3)
    first = runs[-1][0]
    assert {name for name, _ in runs} == {first}
    # Its thread ends as in a kill: without resigning.
    dead = next(keeper for keeper in keepers if keeper.name == first)
    dead._jobs[0]._is_in_office = False
    dead.stop(30)
    ends = office.end
    eventually(lambda: any(name != first for name, _ in runs))
    assert next(at for name, at in runs if name != first) >= ends
    for keeper in keepers:
        keeper.stop(30)


def test_whoever_is_not_elected_looks_again_when_the_term_ends(keeper: Keeper) -> None:
    """So that another takes over at 1.5 intervals after a kill, wherever in its interval it looked before."""
    office = Office()
    leader, other = (Elected(office, "x") for _ in range(2))  # type: ignore[arg-type]  # a stand-in
    assert leader.holds_for(15) == 0.0
    job = keeper.every(10, lambda: pytest.fail("not elected"), elected=other)
    job.plan(job._due + 2)
    wait = job.perform()
    assert wait is not None
    keeper._bring_forward(job, wait)
    assert job._due == pytest.approx(min(office.end, job._due), abs=0.5)
    assert leader.holds_for(15) == 0.0


def test_stop_leaves_the_office_to_the_next_at_once() -> None:
    office = Office()
    elected = [Elected(office, "x") for _ in range(2)]  # type: ignore[arg-type]  # stand-ins
    keeper = Keeper("leader")
    ran = threading.Event()
    keeper.every(3600, ran.set, elected=elected[0], at_once=True)
    keeper.start()
    assert ran.wait(30)
    eventually(lambda: keeper._jobs[0]._is_in_office)
    assert elected[1].holds_for(10) > 0
    keeper.stop(30)
    assert elected[1].holds_for(10) == 0.0


def test_after_a_fork_the_child_has_a_thread_only_when_it_asks() -> None:
    keeper = Keeper("forked")
    runs: list[int] = []
    keeper.every(0.01, lambda: runs.append(os.getpid()))
    keeper.start()
    eventually(lambda: runs)
    # The worst moment: somebody holds the lock.
    keeper._condition.acquire()
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            before = keeper.is_running
            keeper.start()
            while os.getpid() not in runs:
                time.sleep(0.01)
            os.write(write, b"ok" if not before and keeper.stop(30) else b"no")
        finally:
            os._exit(0)
    keeper._condition.release()
    os.waitpid(child, 0)
    assert os.read(read, 2) == b"ok"
    os.close(read)
    os.close(write)
    assert keeper.is_running
    keeper.stop(30)
