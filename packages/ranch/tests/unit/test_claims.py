"""What a worker tells of its claims keeps its order, although two threads send it."""

from __future__ import annotations

import threading
from types import SimpleNamespace

from celery_ranch.claims import Claims
from celery_ranch.entries import Report


class Backlog:
    """Takes reports; the first sender is held up until it is let go."""

    def __init__(self):
        self.taken, self.arrived, self.goes_on = [], threading.Event(), threading.Event()

    def report(self, reports):
        self._take(reports)
        return 0, []

    def claim(self, *ticket, reports, **settings):
        self._take(reports)
        return SimpleNamespace(tickets=[], late=0, claimed=None)

    def _take(self, reports):
        if reports and not self.arrived.is_set():
            self.arrived.set()
            assert self.goes_on.wait(30)
        self.taken += [report.kind for report in reports]


def claims_of(backlog):
    return Claims(SimpleNamespace(backlog=backlog, settings=SimpleNamespace(lease=30, max_attempts=3)))


def held_up(send):
    thread = threading.Thread(target=send)
    thread.start()
    return thread


def test_a_claim_does_not_overtake_what_the_keepers_thread_sends():
    backlog = Backlog()
    claims = claims_of(backlog)
    claims.report(Report("weigh", "1", "t"))
    thread = held_up(claims.flush)
    assert backlog.arrived.wait(30)
    claims.report(Report("end", "1", "t"))
    claims.claim("q", "ticket", "t2")  # it does not wait either
    assert backlog.taken == []
    backlog.goes_on.set()
    thread.join(30)
    assert backlog.taken == ["weigh", "end"]


def test_the_keepers_thread_does_not_overtake_a_claim():
    backlog = Backlog()
    claims = claims_of(backlog)
    claims.report(Report("weigh", "1", "t"))
    thread = held_up(lambda: claims.claim("q", "ticket", "t2"))
    assert backlog.arrived.wait(30)
    claims.report(Report("end", "1", "t"))
    flushing = held_up(claims.flush)
    backlog.goes_on.set()
    thread.join(30)
    flushing.join(30)
    assert backlog.taken == ["weigh", "end"]
