"""What a worker counts of its messages, and tells of them."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_chain_router import ChainRouter
from celery_chain_router.hot_keys import HotKeys
from celery_chain_router.mark import HEADER
from celery_chain_router.traffic import HALF_LIFE, Traffic, TrafficCounter


@given(st.lists(st.integers(0, 30), max_size=400), st.integers(1, 12))
def test_counts_are_never_too_low_and_too_high_by_the_excess_at_most(keys, capacity):
    hot = HotKeys(capacity)
    for key in keys:
        hot.add(key, lambda key=key: str(key))
    exact = Counter(keys)
    found = dict(hot.top(capacity))
    assert len(found) <= capacity
    for key, place in found.items():
        assert place.count - place.excess <= exact[key] <= place.count
        assert place.label == str(key)
    # The promise of the sketch: whoever came more often than one in `capacity` has a place.
    assert {key for key, amount in exact.items() if amount > len(keys) / capacity} <= set(found)


def test_what_has_faded_gives_up_its_place():
    hot = HotKeys(2)
    hot.add(1, lambda: "one")
    hot.fade(0.5)
    assert [place.count for _, place in hot.top(2)] == [0.5]
    hot.fade(0.001)
    assert hot.top(2) == []


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def router():
    router = ChainRouter(routing_key="customer_id")
    router.register_worker("worker1")
    return router


def received(router, customer, **mark):
    """A message as Celery shows it to receivers of ``task_received``."""
    options: dict = {}
    router("order", (), {"customer_id": customer}, options)
    header = {**options["headers"][HEADER], **mark}
    task = SimpleNamespace(name="order", run=lambda customer_id: None)
    return SimpleNamespace(request_dict={HEADER: header}, args=(), kwargs={"customer_id": customer}, task=task)


def test_rates_hot_keys_and_foreign_views_are_told(router):
    clock = Clock()
    counter = TrafficCounter(router, 2, clock=clock)
    for _minute in range(10):
        for number in range(60):
            clock.now += HALF_LIFE / 60
            counter.report()
            counter.count(received(router, "hot"))
            counter.count(received(router, number % 20))
    counter.count(received(router, "hot", ring="of somebody else"))
    counter.count(SimpleNamespace(request_dict={}))
    said = counter.report()
    assert said.received == pytest.approx(120, rel=0.02)
    assert said.other_view == pytest.approx(0.69, abs=0.01)
    assert counter.mismatches == 1
    assert len(said.top) == 2
    _, label, rate, excess = said.top[0]
    assert label == "hot"
    assert rate - excess <= 62 <= rate * 1.03
    assert Traffic.read(said.record().encode()) == said


def test_none_is_counted_where_none_is_wanted(router):
    counter = TrafficCounter(router, 0)
    counter.count(received(router, "hot"))
    assert counter.report().top == ()


@pytest.mark.parametrize(("key", "label"), [("c1", "c1"), (7, "7"), (b"c", "b'c'"), ("x" * 500, "x" * 100)])
def test_a_key_is_named_in_words(router, key, label):
    counter = TrafficCounter(router, 1)
    counter.count(received(router, key))
    assert counter.report().top[0][1] == label


def test_a_key_that_this_process_would_find_otherwise_is_named_by_its_hash(router):
    counter = TrafficCounter(router, 1)
    counter.count(received(router, "c1", key="00000000000000ff"))
    assert counter.report().top[0][:2] == ("00000000000000ff", "00000000000000ff")


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b"{}", b'{"received": 1, "other_view": 0, "top": [[1]]}'])
def test_what_makes_no_sense_says_nothing(data):
    assert Traffic.read(data) == Traffic()
