"""The oracle of sequence numbers: 20 keys, each with numbered tasks, while everything happens to the workers.

In ring mode nothing is lost, and a worker that dies moves its own keys and no others. (Order is not promised.)

A disturbance comes while every worker that it meets runs a body and may take nothing more in hand: between taking a
message off its list and noting that it is in hand, kombu itself loses it with its process or connection.
"""

from __future__ import annotations

import random
import time
from collections import Counter, defaultdict

import pytest

from celery_toolkit_testkit import eventually
from celery_toolkit_testkit.processes import frozen

KEYS = [f"c{index}" for index in range(20)]
#: Seconds of a body that holds a worker while something happens to it.
HOLD = 1.0


class Oracle:
    """Sends numbered tasks, knows which workers there are, and what came of the tasks."""

    def __init__(self, module, start, event_log, proxy):
        self.module, self.start_worker, self.log, self.proxy = module, start, event_log, proxy
        self.router = module.router
        self.workers: dict = {}
        self.sent: set[tuple[str, int]] = set()
        self.next: Counter[str] = Counter()
        #: Bodies that may rightly run twice.
        self.in_hand = 0

    def send(self, each: int, **options) -> list[tuple[str, int]]:
        return [self.send_one(key, **options) for _ in range(each) for key in KEYS]

    def send_one(self, key: str, seconds: float = 0.005, **options) -> tuple[str, int]:
        number = self.next[key]
        self.next[key] += 1
        self.module.work.apply_async((key, number, seconds), **options)
        self.sent.add((key, number))
        return key, number

    def owners(self) -> dict[str, str]:
        return {key: self.router.get_worker_for_key(key) for key in KEYS}

    def follow(self) -> None:
        eventually(lambda: set(self.router.ring) == set(self.workers), message=f"the ring to be {set(self.workers)}")

    def busy(self, *names: str) -> None:
        """Every worker of these runs a body of HOLD seconds, and has a backlog behind it."""
        owners = self.owners()
        held = [self.send_one(next(key for key in KEYS if owners[key] == name), HOLD) for name in names]
        eventually(lambda: set(held) <= self.seen("start"))

    def seen(self, kind: str) -> set[tuple[str, int]]:
        return {(event["key"], event["number"]) for event in self.log.events(kind=kind)}

    def finish(self, timeout: float = 60.0) -> None:
        eventually(lambda: self.seen("done") == self.sent, timeout=timeout, message="every task to end")

    def done_by(self, tasks) -> dict[str, set[str]]:
        wanted, found = set(tasks), defaultdict(set)
        for event in self.log.events(kind="done"):
            if (event["key"], event["number"]) in wanted:
                found[event["key"]].add(event["worker"])
        return found

    def join(self, *names: str) -> None:
        before = self.owners() if self.workers else {}
        for name in names:
            self.workers[name] = self.start_worker("oracle_app", name=name, concurrency=1, wait=False)
        tasks = self.send(2)
        for name in names:
            self.workers[name].wait_ready()
        self.follow()
        after = self.owners()
        assert all(after[key] in (owner, *names) for key, owner in before.items())
        self.finish()
        assert set().union(*self.done_by(tasks).values()) <= set(self.workers)

    def leave(self, name: str) -> None:
        before = self.owners()
        self.busy(name)
        tasks = self.send(2)
        self.workers.pop(name).stop()
        tasks += self.send(2)
        self.expect_only_its_keys_moved(name, before, tasks)

    def kill(self, name: str) -> None:
        before = self.owners()
        # Held by the worker until they are due, unacknowledged: others must learn of them.
        later = [self.send_one(key, countdown=4) for key in KEYS]
        self.busy(name)
        tasks = self.send(2)
        killed = time.monotonic()
        self.workers.pop(name).kill()
        # A producer that does not know yet goes on sending to it.
        tasks += self.send(2)
        self.in_hand += 1
        self.expect_only_its_keys_moved(name, before, tasks + later)
        print(f"killed: all ended {time.monotonic() - killed:.1f} s later; lease 3 s")

    def freeze(self, name: str) -> None:
        before = self.owners()
        self.busy(name)
        tasks = self.send(2)
        worker = self.workers.pop(name)
        with frozen(worker.pid):
            self.follow()
            tasks += self.send(2)
            self.expect_only_its_keys_moved(name, before, tasks)
        self.in_hand += 1
        self.workers[name] = worker
        self.follow()
        assert self.owners() == before

    def cut(self) -> None:
        """All connections of all workers, to the broker and to the membership, at once."""
        before = self.owners()
        self.busy(*self.workers)
        tasks = self.send(2)
        assert self.proxy.cut() > 0
        self.in_hand += len(self.workers)
        tasks += self.send(2)
        self.finish()
        assert self.done_by(tasks) == {key: {owner} for key, owner in before.items()}

    def expect_only_its_keys_moved(self, name, before, tasks) -> None:
        self.finish()
        self.follow()
        after = self.owners()
        assert {key for key in KEYS if before[key] != after[key]} == {key for key in KEYS if before[key] == name}
        done_by = self.done_by(tasks)
        assert all(done_by[key] == {owner} for key, owner in before.items() if owner != name)

    def check(self) -> None:
        started = Counter((event["key"], event["number"]) for event in self.log.events(kind="start"))
        assert set(started) == self.sent == self.seen("done")
        assert started.total() - len(started) <= self.in_hand


@pytest.fixture
def oracle(celery_app_module, celery_worker_process, event_log, tcp_proxy):
    module = celery_app_module("oracle_app")
    proxy = tcp_proxy()
    module.router.attach(module.app)

    def start(*arguments, **options):
        return celery_worker_process(
            *arguments, **options, env={"CELERY_BROKER_URL": proxy.url, "CELERY_RESULT_BACKEND": proxy.url}
        )

    return Oracle(module, start, event_log, proxy)


def test_nothing_is_lost_over_joins_leaves_kills_freezes_and_cuts(oracle):
    oracle.join("a", "b", "c")
    oracle.leave("b")
    oracle.join("d")
    oracle.kill("a")
    oracle.freeze("c")
    oracle.cut()
    oracle.check()


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_nothing_is_lost_whatever_happens_in_whatever_order(oracle, seed):
    """20 disturbances in a row, at random."""
    choose = random.Random(seed)
    names = iter(f"w{number}" for number in range(100))
    oracle.join(*[next(names) for _ in range(3)])
    for _ in range(20):
        what = choose.choice(["join", "leave", "kill", "freeze", "cut"])
        if what == "join" or (len(oracle.workers) < 2 and what != "cut"):
            oracle.join(next(names))
        elif what == "cut":
            oracle.cut()
        else:
            getattr(oracle, what)(choose.choice(sorted(oracle.workers)))
    oracle.check()
