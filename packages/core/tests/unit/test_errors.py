"""Errors carry data and survive the way through a result backend or a process pool."""

from __future__ import annotations

import pickle
from copy import copy

import pytest

from celery_toolkit_core import errors


@pytest.mark.parametrize(
    "error",
    [
        errors.ToolkitError("it broke", task_id="t1", keys=["a"]),
        errors.InvalidParameter("limit", -1, "give a whole number from 1"),
        errors.RedisUnavailable("gone", server="localhost:6379/0"),
        errors.RedisFull("full", server="localhost:6379/0"),
        errors.Quarantined("unreadable", reason="not ours"),
    ],
)
@pytest.mark.parametrize("way", [lambda error: pickle.loads(pickle.dumps(error)), copy])
def test_errors_pickle_with_all_their_data(error, way):
    again = way(error)
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_subclass_with_other_arguments_pickles_too():
    again = pickle.loads(pickle.dumps(_Odd(3)))
    assert (again.number, str(again)) == (3, "number 3")


@pytest.mark.parametrize(
    "value", ["redis://u:s3cret@h", ["amqp://:s3:c/ret@h", "x"], {"url": "rediss://:s3cret@@h?x=1"}]
)
def test_a_refused_value_shows_no_password_of_a_url(value):
    message = str(errors.InvalidParameter("redis_url", value, "give text"))
    assert "cret" not in message
    assert ":**@h" in message


def test_a_value_that_does_not_pickle_goes_as_its_text():
    again = pickle.loads(pickle.dumps(errors.InvalidParameter("key", lambda: 1, "give text")))
    assert "lambda" in again.value
    assert again.parameter == "key"


class _Odd(errors.ToolkitError):
    def __init__(self, number: int) -> None:
        super().__init__(f"number {number}", number=number)


def test_one_root_and_the_builtin_that_people_expect():
    assert issubclass(errors.InvalidParameter, (errors.ToolkitError, ValueError))
    assert issubclass(errors.InvalidParameter, ValueError)
    assert issubclass(errors.RedisUnavailable, ConnectionError)
    for kind in (errors.RedisUnavailable, errors.RedisFull, errors.Quarantined):
        assert issubclass(kind, errors.ToolkitError)


def test_invalid_parameter_names_parameter_value_and_remedy():
    assert str(errors.InvalidParameter("limit", 0, "give more")) == "limit=0 is not possible: give more"


def test_a_huge_value_does_not_make_a_huge_message():
    assert len(str(errors.InvalidParameter("limit", "x" * 10**6, "give less"))) < 200
