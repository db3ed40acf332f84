from __future__ import annotations

import pytest
from celery import Celery
from hypothesis import given
from hypothesis import strategies as st

from celery_heimdall import HeimdallTask, RateLimit, Unique
from celery_heimdall.calls import Call
from celery_heimdall.task import unique_key_for_task
from celery_toolkit_core.errors import InvalidParameter

app = Celery("calls", set_as_current=False)


@app.task(base=HeimdallTask, heimdall={"unique": True}, name="report", shared=False)
def report(customer, page=1, **more):
    return None


def key(*args, **kwargs):
    return Call(report, args, kwargs).key(Unique())


def test_a_call_has_one_key_however_it_is_written():
    assert key(1) == key(customer=1) == key(1, 1) == key(1, page=1)
    assert key({"a": 1, "b": 2}) == key({"b": 2, "a": 1})
    assert key((1, 2)) == key([1, 2])


@pytest.mark.parametrize("other", ["1", 1.0, True, None, [1], {"a": 1}])
def test_values_of_other_types_have_other_keys(other):
    assert key(1) != key(other)


@given(st.text(), st.text(), st.text(), st.text())
def test_no_delimiter_makes_two_calls_one(a, b, c, d):
    assert ((a, b) == (c, d)) == (key(a, b) == key(c, d))


def test_a_key_may_be_of_some_arguments_a_text_or_a_function():
    assert Call(report, (1, 2)).key(Unique(by="customer")) == Call(report, (1, 3)).key(Unique(by="customer"))
    assert Call(report, (1,)).key(Unique(key="one")) == "one"
    assert Call(report, (1,)).key(Unique(key=lambda args, kwargs: args[0])) == "1"


@pytest.mark.parametrize("bad", [None, "", b"x", 1.5, True, ["x"]])
def test_a_key_function_gives_text_or_a_whole_number(bad):
    with pytest.raises(InvalidParameter, match="key function"):
        Call(report, (1,)).key(Unique(key=lambda args, kwargs: bad))


def test_an_error_of_the_key_function_is_the_callers():
    with pytest.raises(ZeroDivisionError):
        Call(report, (1,)).key(Unique(key=lambda args, kwargs: 1 / 0))


def test_any_argument_that_the_serialiser_takes_has_a_key():
    @app.task(base=HeimdallTask, serializer="pickle", name="pickled", shared=False)
    def pickled(value):
        return None

    values = [Call(pickled, (slice(1, end),)).key(Unique()) for end in (2, 2, 3)]
    assert values[0] == values[1] != values[2]


def test_a_limit_counts_the_whole_task_unless_it_is_parted():
    def part(limit, *args):
        (demand,) = Call(report, args).demands([limit], "h:", 30.0)
        return demand.limit.name, demand.part

    assert part(RateLimit("1/s"), 1) == part(RateLimit("1/s"), 2) == ("h:report", ())
    assert part(RateLimit("1/s", by="customer"), 1) != part(RateLimit("1/s", by="customer"), "1")
    assert part(RateLimit("1/s", key="amazon"), 1) == ("h:amazon", ())
    assert part(RateLimit("1/s", name="api", key=lambda args, kwargs: args[0]), 7) == ("h:api", ("7",))


def test_a_limit_function_takes_what_it_names_and_gives_a_pair():
    seen = {}

    def limit(task, kwargs):
        seen.update(task=task.name, kwargs=kwargs)
        return 3, 60

    (demand,) = Call(report, (), {"customer": 1}).demands([RateLimit(limit)], "h:", 30.0)
    assert (demand.limit.times, demand.limit.per) == (3, 60.0)
    assert seen == {"task": "report", "kwargs": {"customer": 1}}
    with pytest.raises(InvalidParameter, match="rate_limit"):
        Call(report).demands([RateLimit(lambda: None)], "h:", 30.0)


def test_unique_key_for_task_puts_its_prefix_in_front():
    assert unique_key_for_task(report, (1,), {}, prefix="p:") == f"p:{key(1)}"
