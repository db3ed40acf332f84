"""Promise 3: at every moment every task that was ever submitted is in exactly one place, whatever is done to it."""

from __future__ import annotations

from collections import Counter
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from celery_ranch.audits import PLACES
from celery_ranch.backlog import Backlog, client_of, queue_of
from celery_ranch.entries import Report, Submission
from celery_ranch.places import dead, decide
from celery_toolkit_core.connection import connect
from celery_toolkit_core.keys import KeySpace

QUEUES = [queue_of("", "celery"), queue_of("", "reports")]
CLIENTS = "abc"

client = st.sampled_from(CLIENTS)
queue = st.sampled_from(QUEUES)
pick = st.integers(0, 5)
outcome = st.sampled_from(
    ["done", "revoked", "expired", "requeued", "released", "quarantined", "handed_back limited", "handed_back ended"]
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), client, queue, st.sampled_from(["new", "inside", "free"])),
        st.tuples(st.just("put"), client, queue, st.just("new")),
        st.tuples(st.just("later"), client, queue),
        st.tuples(st.just("claim"), queue),
        st.tuples(st.just("claim"), queue),
        st.tuples(st.just("settle"), pick, outcome, st.sampled_from(["", "0.5"])),
        st.tuples(st.just("back"), pick, queue),
        st.tuples(st.just("die"), pick, st.booleans()),
        st.tuples(st.just("due")),
        st.tuples(st.just("purge"), client),
        st.tuples(st.just("change"), client, st.sampled_from(["h", "d"]), st.sampled_from(["1", ""])),
        st.tuples(st.just("change"), client, st.sampled_from(["x", "y"]), st.sampled_from(["2", ""])),
        st.tuples(st.just("decide"), st.sampled_from(["retry", "drop"])),
    ),
    min_size=10,
    max_size=50,
)


@pytest.fixture
def backlog(redis_url):
    with connect(redis_url, timeout=10) as opened:
        yield Backlog(opened, KeySpace("ranch", "books"))


class Books:
    """Knows of each task where it must be."""

    def __init__(self, backlog):
        backlog.client.delete(*backlog.keys)
        self.backlog = backlog
        self.number = 0
        self.flying = {}
        self.away = []
        self.where = Counter()

    def put(self, label, queue, admission, delay=0.0, text=None):
        text = text or f"t{self.number}"
        self.number += 1
        task = Submission(
            text.encode(), queue, b"q", client_of(label), label, task_id=text, admission=admission, delay=delay
        )
        state = self.backlog.enqueue(task).state
        if state in ("waiting", "scheduled"):
            self.where["submitted"] += 1
            self.where[state] += 1

    def later(self, label, queue):
        self.put(label, queue, "new", delay=1000.0)

    def claim(self, queue):
        claimed = self.backlog.claim(queue, uuid4().hex, uuid4().hex, lease=1000, max_attempts=2).claimed
        if claimed is not None:
            self.where["waiting"] -= 1
            self.where["in_flight"] += 1
            self.flying[claimed.entry] = claimed

    def any_flying(self, pick):
        if not self.flying:  # else most steps would find nothing to do
            self.put(CLIENTS[pick % 3], QUEUES[0], "free")
            self.claim(QUEUES[0])
        entries = sorted(self.flying)
        return self.flying[entries[pick % len(entries)]] if entries else None

    def settle(self, pick, outcome, seconds):
        claimed = self.any_flying(pick)
        if claimed is None:
            return
        report = Report("end", claimed.entry, claimed.token, outcome, seconds)
        late, _ = self.backlog.report([report, report])
        assert late == 1  # the repetition
        del self.flying[claimed.entry]
        self.where["in_flight"] -= 1
        place = outcome.partition(" ")[0]
        self.where["waiting" if place in ("requeued", "released") else place] += 1
        if outcome == "handed_back limited":
            self.away.append((claimed.label, claimed.message.decode()))

    def back(self, pick, queue):
        if self.away:
            label, text = self.away.pop(pick % len(self.away))
            self.put(label, queue, "back", text=text)

    def die(self, pick, begun):
        claimed = self.any_flying(pick)
        if claimed is not None:
            if begun:
                self.backlog.report([Report("start", claimed.entry, claimed.token)])
                self.backlog.client.zadd(self.backlog.key("inflight"), {claimed.entry: 1})
            else:
                self.backlog.report([Report("lost", claimed.entry, claimed.token)])
            care = self.backlog.tend(max_attempts=2)
            fate = "waiting" if care.returned else "abandoned" if care.abandoned else "dead"
            del self.flying[claimed.entry]
            self.where["in_flight"] -= 1
            self.where[fate] += 1

    def due(self):
        backlog = self.backlog
        for entry in backlog.client.zrange(backlog.key("scheduled"), 0, 0):
            backlog.client.zadd(backlog.key("scheduled"), {entry: 1})
            backlog.tend(max_attempts=2)
            self.where["scheduled"] -= 1
            self.where["waiting"] += 1

    def purge(self, label):
        thrown = len(self.backlog.run("purge", [client_of(label), 100, *QUEUES]))
        self.where["waiting"] -= thrown
        self.where["purged"] += thrown

    def change(self, label, field, value):
        self.backlog.run("client", [client_of(label), label, field, value])

    def decide(self, decision):
        for place in dead(self.backlog)[:1]:
            decided, _ = decide(self.backlog, decision, [place.entry])
            assert decided == 1
            self.where[place.state] -= 1
            self.where["waiting" if decision == "retry" else "purged"] += 1

    def are_even(self):
        seen = self.backlog.audit()
        assert {name: seen[name] for name in PLACES} == {name: self.where[name] for name in PLACES}
        assert seen["submitted"] == sum(seen[name] for name in PLACES)
        stored = sum(seen[name] for name in ("scheduled", "waiting", "in_flight", "dead", "quarantined"))
        assert seen["entries"] == seen["messages"] == stored
        looks = self.backlog.run("look", [client_of(label) for label in CLIENTS])
        assert sum(look[3] for look in looks) == seen["waiting"] + seen["scheduled"]
        assert sum(look[4] for look in looks) == seen["in_flight"]
        assert sum(queue.waiting for queue in self.backlog.queues().values()) == seen["waiting"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps)
def test_every_task_is_in_exactly_one_place_after_every_step(backlog, program):
    books = Books(backlog)
    for step, *arguments in program:
        getattr(books, step)(*arguments)
        books.are_even()
