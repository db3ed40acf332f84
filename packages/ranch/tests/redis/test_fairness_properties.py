"""The shipped scripts on a real server against a plain model, on random workloads; and the bounds that follow."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from uuid import uuid4

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from celery_ranch.backlog import Backlog, client_of, queue_of
from celery_ranch.entries import Report, Submission
from celery_toolkit_core.keys import KeySpace

pytestmark = pytest.mark.not_on("cluster", reason="one client of one server for all examples")

Q = queue_of("", "celery")
CLIENTS = "abcde"
WEIGHTS = (0.5, 1.0, 2.0)

steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from(CLIENTS), st.sampled_from((0.5, 1.0, 3.0)), st.integers(0, 2)),
        st.tuples(st.just("weight"), st.sampled_from(CLIENTS), st.sampled_from(WEIGHTS)),
        st.tuples(st.just("cap"), st.sampled_from(CLIENTS), st.sampled_from((None, 1, 2))),
        st.tuples(st.just("pause"), st.sampled_from(CLIENTS), st.booleans()),
        st.tuples(st.just("claim")),
        st.tuples(
            st.just("settle"),
            st.integers(0, 3),
            st.sampled_from(("done", "requeued", "released", "handed_back", "expired")),
        ),
    ),
    max_size=60,
)


@dataclass
class Line:
    """One client in the model."""

    weight: float = 1.0
    cap: int | None = None
    paused: bool = False
    start: float = 0.0
    last: int = 0
    since: int = 0
    state: str = "new"
    waiting: list[tuple[int, int, str]] = field(default_factory=list)
    running: int = 0

    @property
    def blocked(self) -> bool:
        return self.paused or (self.cap is not None and self.running >= self.cap)


class Model:
    """Start-time fair queueing in the plainest words, without indexes."""

    def __init__(self) -> None:
        self.lines = {label: Line() for label in CLIENTS}
        self.clock = 0.0
        self.turns = 0
        self.order = 0

    def place(self, line: Line) -> None:
        before = line.state
        if not line.waiting:
            line.state = "idle"
        elif line.blocked:
            line.state = "held"
        else:
            line.state = "ready"
            if before != "ready":
                line.start = max(line.start, self.clock)
                self.turns += 1
                line.since = self.turns

    def put(self, label: str, text: str, rank: int) -> int:
        self.order += 1
        self.back(label, (rank, self.order, text))
        return self.order

    def back(self, label: str, item: tuple[int, int, str]) -> None:
        line = self.lines[label]
        line.waiting.append(item)
        line.waiting.sort()
        self.place(line)

    def next(self) -> tuple[str, tuple[int, int, str]] | None:
        while ready := [
            (line.start, line.last, line.since, label) for label, line in self.lines.items() if line.state == "ready"
        ]:
            label = min(ready)[3]
            line = self.lines[label]
            if line.blocked:
                self.place(line)
                continue
            return label, line.waiting.pop(0)
        return None

    def charge(self, label: str, step: float) -> tuple[int, int]:
        line = self.lines[label]
        self.clock = max(self.clock, line.start)
        self.turns += 1
        before, line.last = line.last, self.turns
        line.start += step
        line.running += 1
        self.place(line)
        taken = line.last, before
        # Turns that the clock has passed say nothing any more: two per claim are forgotten.
        passed = [
            (each.start, client_of(name), each)
            for name, each in self.lines.items()
            if each.state == "idle" and each.start < self.clock
        ]
        for _, _, each in sorted(passed, key=lambda entry: entry[:2])[:2]:
            each.start, each.last, each.since, each.state = 0.0, 0, 0, "new"
        return taken


@pytest.fixture(scope="module")
def backlog(redis_server):
    redis_server.start()
    with redis.Redis.from_url(redis_server.url, socket_timeout=10) as client:
        yield Backlog(client, KeySpace("ranch", "model"))


def put(backlog, label, text, cost=1.0, rank=0):
    backlog.enqueue(Submission(text.encode(), Q, b"q", client_of(label), label, cost=cost, rank=rank, task_id=text))


def claim(backlog):
    return backlog.claim(Q, uuid4().hex, uuid4().hex, lease=60, max_attempts=3).claimed


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps)
def test_the_scripts_do_what_the_model_does_and_nothing_gets_lost(backlog, program):
    backlog.client.flushdb()
    model, flying, number, ended = Model(), [], 0, 0
    costs = {}
    for step, *arguments in program:
        if step == "put":
            label, cost, rank = arguments
            number += 1
            text = f"t{number}"
            costs[text] = cost
            put(backlog, label, text, cost, rank)
            model.put(label, text, rank)
        elif step in ("weight", "cap", "pause"):
            label, value = arguments
            line = model.lines[label]
            if step == "weight":
                line.weight = value
                fields = ["w", repr(value)]
            elif step == "cap":
                line.cap = value
                fields = ["x", "" if value is None else value]
            else:
                line.paused = value
                fields = ["h", "1" if value else ""]
            backlog.run("client", [client_of(label), label, *fields])
            if line.state == "held" and not line.blocked:
                model.place(line)
        elif step == "claim":
            expected, claimed = model.next(), claim(backlog)
            assert (expected is None) == (claimed is None)
            if claimed is None:
                continue
            label, item = expected
            assert (claimed.label, claimed.message.decode()) == (label, item[2])
            charged = round(costs[item[2]] * model.lines[label].weight, 6)
            turn, last = model.charge(label, charged)
            flying.append((claimed, label, item, charged, turn, last))
        elif flying:
            index, outcome = arguments
            claimed, label, item, charged, turn, last = flying.pop(index % len(flying))
            backlog.report([Report("end", claimed.entry, claimed.token, outcome)])
            line = model.lines[label]
            line.running -= 1
            if outcome in ("released", "handed_back", "expired") and line.state != "new":
                line.start = max(0.0, line.start - charged)
                if line.last == turn:
                    line.last = last
                model.place(line)
            if outcome in ("requeued", "released"):
                model.back(label, item)
            else:
                ended += 1
            if line.state == "held" and not line.blocked:
                model.place(line)
        seen = backlog.audit()
        assert seen["submitted"] == number == seen["waiting"] + seen["in_flight"] + ended
        assert seen["waiting"] == sum(len(line.waiting) for line in model.lines.values())
        assert seen["entries"] == seen["messages"] == number - ended


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(2, 7), st.integers(0, 30))
def test_a_new_client_is_served_after_at_most_k_minus_1_others(backlog, busy, served_before):
    """Promise 1: with K busy clients of equal weight, the first task of a new one waits for at most K-1 others."""
    backlog.client.flushdb()
    for label in range(busy - 1):
        for number in range(40):
            put(backlog, f"busy{label}", f"{label}-{number}")
    for _ in range(served_before):
        claim(backlog)
    put(backlog, "new", "new")
    position = next(place for place in range(10 * busy) if claim(backlog).label == "new")
    assert position <= busy - 1


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(WEIGHTS), st.sampled_from((0.5, 1.0, 2.0))), min_size=2, max_size=6))
def test_every_head_of_line_is_served_within_the_general_bound(backlog, clients):
    """Between two turns of a client, each other client starts at most ``own step / other's step`` + 1 tasks."""
    backlog.client.flushdb()
    step = {}
    for index, (weight, cost) in enumerate(clients):
        label = f"c{index}"
        step[label] = weight * cost
        backlog.run("client", [client_of(label), label, "w", repr(weight)])
        for number in range(40):
            put(backlog, label, f"{label}-{number}", cost)
    order = [claim(backlog).label for _ in range(40)]
    for label in step:
        places = [place for place, each in enumerate(order) if each == label]
        for first, second in zip([-1, *places], [*places, None], strict=True):
            if second is None:
                break
            for other in step:
                if other != label:
                    others = order[first + 1 : second].count(other)
                    assert others <= step[label] / step[other] + 1


calls = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(CLIENTS), st.sampled_from((0.5, 1.0, 3.0, 10.0))),
        st.tuples(st.just("claim"), st.integers(1, 4)),
    ),
    min_size=20,
    max_size=120,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.tuples(*[st.sampled_from((0.25, *WEIGHTS))] * len(CLIENTS)), calls)
def test_while_two_clients_wait_neither_gets_ahead_by_more_than_a_step_each(backlog, weights, program):
    """Promise 1 in its general form, for arrivals at any time: Goyal, Vin, Cheng, theorem 1.

    Over any span in which two clients have work, what they were charged differs by at most the largest step of each.
    """
    backlog.client.flushdb()
    weight = dict(zip(CLIENTS, weights, strict=True))
    for label in CLIENTS:
        backlog.run("client", [client_of(label), label, "w", repr(weight[label])])
    waiting = dict.fromkeys(CLIENTS, 0)
    largest = dict.fromkeys(CLIENTS, 0.0)
    # For each pair the most and the least that (charged of one - charged of the other) has been since both have work.
    lead = {}
    for subject, value in program:
        if subject != "claim":
            put(backlog, subject, f"{subject}-{value}", value)
            waiting[subject] += 1
            largest[subject] = max(largest[subject], value * weight[subject])
            continue
        for _ in range(value):
            claimed = claim(backlog)
            assert (claimed is None) == (not any(waiting.values()))
            if claimed is None:
                break
            label = claimed.label
            step = float(claimed.message.decode().partition("-")[2]) * weight[label]
            both = {(a, b) for a in CLIENTS for b in CLIENTS if a < b and waiting[a] and waiting[b]}
            lead = {pair: seen for pair, seen in lead.items() if pair in both}
            for pair in both:
                now, most, least = lead.get(pair, (0.0, 0.0, 0.0))
                now += step if label == pair[0] else -step if label == pair[1] else 0.0
                most, least = max(most, now), min(least, now)
                lead[pair] = (now, most, least)
                assert most - least <= largest[pair[0]] + largest[pair[1]] + 1e-5
            waiting[label] -= 1
            if not waiting[label]:
                lead = {pair: seen for pair, seen in lead.items() if label not in pair}


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(2, 8))
def test_with_equal_weights_a_head_of_line_waits_for_at_most_two_rounds(backlog, busy):
    backlog.client.flushdb()
    for label in range(busy):
        for number in range(30):
            put(backlog, f"c{label}", f"{label}-{number}")
    order = [claim(backlog).label for _ in range(busy * 6)]
    for label in set(order):
        places = [place for place, each in enumerate(order) if each == label]
        assert all(second - first - 1 <= 2 * (busy - 1) for first, second in pairwise(places))
