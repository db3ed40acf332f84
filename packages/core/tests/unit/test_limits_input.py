"""What cannot be meant is refused by name, before anything is written."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from celery_toolkit_core.deadletters import DeadLetter, DeadLetters
from celery_toolkit_core.delayed import Delayed
from celery_toolkit_core.demands import MOST
from celery_toolkit_core.errors import InvalidParameter
from celery_toolkit_core.keys import KeySpace
from celery_toolkit_core.leases import Held, LeaseHeld, Leases
from celery_toolkit_core.limits import Concurrency, Demand, Limiter, LimitReached, RateLimit, parse_rate

SPACE = KeySpace("test")
NAN, INF = float("nan"), float("inf")


class NoServer:
    """A client whose every use is a failure of the test."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the server was asked: {name}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("60/m", (60, 60.0)),
        ("10/5s", (10, 5.0)),
        (" 2 / 500ms ", (2, 0.5)),
        ("100000/d", (100_000, 86_400.0)),
        ("3/1.5h", (3, 5400.0)),
        ((4, 2), (4, 2.0)),
        ([4, timedelta(minutes=1)], (4, 60.0)),
    ],
)
def test_rates_are_read(text: Any, expected: tuple[int, float]) -> None:
    assert parse_rate(text) == expected


@pytest.mark.parametrize(
    "rate",
    [
        "", "60", "60/", "/m", "m/60", "0/m", "-1/m", "1.5/m", "60/0s", "60/w", "60/m/m", "6\u0660/m", "60/0.0001ms",
        None, True, 60, 60.0, b"60/m", {1: 2}, (), (1,), (1, 2, 3),
        (0, 1), (-1, 1), (1.5, 1), (True, 1), ("1", 1), (None, 1), (NAN, 1), (MOST + 1, 1),
        (1, 0), (1, -1), (1, NAN), (1, INF), (1, True), (1, "1"), (1, None), (1, 0.0001), (1, 1e300),
    ],
)  # fmt: skip
def test_a_rate_that_cannot_be_meant_is_refused(rate: Any) -> None:
    with pytest.raises(InvalidParameter, match="rate"):
        RateLimit(rate, name="api")


SLOT = Concurrency(1, name="slot").demand()
BAD_COUNTS = [0, -1, 1.0, 0.5, NAN, INF, True, False, None, "1", 2**53 + 1]
BAD_SPANS = [0, 0.0, -1, NAN, INF, -INF, True, None, "1", timedelta(0), 1e300]
BAD_TEXTS: list[Any] = ["", None, b"x", 1, "x" * 513, "\ud800"]

CASES: list[tuple[str, str, Callable[[Any], Any], list[Any]]] = [
    ("times", "Concurrency times", lambda v: Concurrency(v, name="a"), BAD_COUNTS),
    ("ttl", "Concurrency ttl", lambda v: Concurrency(1, name="a", ttl=v), BAD_SPANS),
    ("name", "Concurrency name", lambda v: Concurrency(1, name=v), BAD_TEXTS),
    ("name", "RateLimit name", lambda v: RateLimit("1/s", name=v), BAD_TEXTS),
    ("paused", "paused", lambda v: RateLimit("1/s", name="a", paused=v), [0, 1, None, "no"]),
    ("cost", "cost of a rate", lambda v: RateLimit("1/s", name="a").demand(cost=v), [c for c in BAD_COUNTS if c != 0]),
    ("cost", "cost of a slot", lambda v: Demand(Concurrency(1, name="a"), (), v), [0, 2, 1.0, True]),
    ("part", "part", lambda v: RateLimit("1/s", name="a").demand(v), BAD_TEXTS),
    ("permits", "permits", lambda v: Leases(NoServer(), SPACE, permits=v), BAD_COUNTS),
    ("ttl", "lease ttl", lambda v: Leases(NoServer(), SPACE, ttl=v), BAD_SPANS),
    ("ttl", "acquire ttl", lambda v: Leases(NoServer(), SPACE).acquire("a", "t", ttl=v), [v for v in BAD_SPANS if v]),
    ("name", "lease name", lambda v: Leases(NoServer(), SPACE).acquire(v, "t"), BAD_TEXTS),
    ("token", "lease token", lambda v: Leases(NoServer(), SPACE).release("a", v), BAD_TEXTS),
    ("token", "renewed token", lambda v: Leases(NoServer(), SPACE).renew("a", v), BAD_TEXTS),
    ("token", "take token", lambda v: Limiter(NoServer(), SPACE).take([SLOT], token=v), BAD_TEXTS),
    ("retry_after", "retry_after", lambda v: Limiter(NoServer(), SPACE).penalise([], retry_after=v), BAD_SPANS),
    ("stamp", "stamp", lambda v: Limiter(NoServer(), SPACE).settle([], stamp=v), BAD_COUNTS),
    ("entry", "entry", lambda v: Delayed(NoServer(), SPACE).put(v), BAD_TEXTS),
    ("delay", "delay", lambda v: Delayed(NoServer(), SPACE).put("a", delay=v), [-1, NAN, INF, True, None, "1"]),
    ("order", "order", lambda v: Delayed(NoServer(), SPACE).put("a", order=v), [NAN, INF, True, "1"]),
    ("count", "count", lambda v: Delayed(NoServer(), SPACE).take(v), [*BAD_COUNTS, 1001]),
    ("lease", "lease", lambda v: Delayed(NoServer(), SPACE).take(lease=v), BAD_SPANS),
    ("most", "most", lambda v: DeadLetters(NoServer(), SPACE, most=v), BAD_COUNTS),
    ("keep", "keep", lambda v: DeadLetters(NoServer(), SPACE, keep=v), BAD_SPANS),
    ("id", "letter id", lambda v: DeadLetters(NoServer(), SPACE).put(DeadLetter(v, "t", "r")), BAD_TEXTS),
]  # fmt: skip


@pytest.mark.parametrize(
    ("parameter", "use", "value"),
    [
        pytest.param(parameter, use, value, id=f"{what}={value!r:.12}")
        for parameter, what, use, bad in CASES
        for value in bad
    ],
)
def test_a_bad_value_names_its_parameter(parameter: str, use: Callable[[Any], Any], value: Any) -> None:
    with pytest.raises(InvalidParameter) as refused:
        use(value)
    assert refused.value.parameter == parameter


def test_definitions_compare_hash_and_pickle() -> None:
    for limit in (RateLimit("60/m", name="a"), Concurrency(5, name="a", ttl=9)):
        copy = pickle.loads(pickle.dumps(limit))
        assert copy == limit
        assert hash(copy) == hash(limit)
    assert RateLimit("60/m", name="a") == RateLimit((60, 60.0), name="a")


def test_errors_pickle_with_their_data() -> None:
    held = pickle.loads(pickle.dumps(LeaseHeld("held", name="n", holder="h", remaining=1.5)))
    assert (held.name, held.holder, held.remaining) == ("n", "h", 1.5)
    reached = pickle.loads(pickle.dumps(LimitReached("full", blocked_by=("a",), retry_after=None)))
    assert (reached.blocked_by, reached.retry_after) == (("a",), None)
    assert not Held("n", "h", 1.0)


def test_a_slot_and_a_rate_of_one_name_do_not_meet() -> None:
    rate, slots = RateLimit("1/s", name="a").demand(), Concurrency(1, name="a").demand()
    assert not set(rate.keys(SPACE)) & set(slots.keys(SPACE))
    assert not set(RateLimit("1/s", name="a").demand("b", "c").keys(SPACE)[:2]) & set(
        RateLimit("1/s", name="a").demand("bc").keys(SPACE)[:2]
    )
