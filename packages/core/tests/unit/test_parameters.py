"""Checks of what users pass in: bad values are errors that name parameter, value and remedy."""

from __future__ import annotations

from datetime import timedelta
from fractions import Fraction

import pytest

from celery_toolkit_core import parameters
from celery_toolkit_core.errors import InvalidParameter


def test_seconds_takes_numbers_and_timedeltas():
    assert parameters.seconds("lease", 3) == 3.0
    assert isinstance(parameters.seconds("lease", 3), float)
    assert parameters.seconds("lease", timedelta(minutes=1)) == 60.0
    assert parameters.seconds("lease", 0, zero=True) == 0.0


@pytest.mark.parametrize(
    "value", [0, -1, True, "3", None, float("nan"), float("inf"), timedelta(0), timedelta(seconds=-1), 1j, [1]]
)
def test_seconds_refuses(value):
    with pytest.raises(InvalidParameter) as caught:
        parameters.seconds("lease", value)
    assert caught.value.parameter == "lease"


@pytest.mark.parametrize("value", [0, -0.1, True, "1", None, float("nan"), float("-inf"), Fraction(1, 2)])
def test_positive_refuses(value):
    with pytest.raises(InvalidParameter):
        parameters.positive("weight", value)


def test_positive_below_zero_is_refused_even_where_zero_is_allowed():
    assert parameters.positive("cost", 0, zero=True) == 0.0
    with pytest.raises(InvalidParameter):
        parameters.positive("cost", -1, zero=True)


@pytest.mark.parametrize("value", [0, -1, 1.0, 1.5, True, "1", None, 11])
def test_count_refuses(value):
    with pytest.raises(InvalidParameter, match="from 1 to 10"):
        parameters.count("limit", value, most=10)


def test_count_takes_both_ends():
    assert [parameters.count("limit", value, least=0, most=10) for value in (0, 10)] == [0, 10]


@pytest.mark.parametrize("value", [0, 1, "true", None])
def test_flag_refuses_what_merely_looks_like_a_flag(value):
    with pytest.raises(InvalidParameter):
        parameters.flag("strict", value)
    assert parameters.flag("strict", True) is True


@pytest.mark.parametrize("value", ["", None, b"x", 5, "x" * 513, "\ud800"])
def test_text_refuses(value):
    with pytest.raises(InvalidParameter):
        parameters.text("name", value)


def test_text_takes_any_encodable_text():
    assert parameters.text("name", "Käse\n{}") == "Käse\n{}"


def test_one_of_names_the_near_word():
    assert parameters.one_of("policy", "raise", ["raise", "ignore"]) == "raise"
    with pytest.raises(InvalidParameter, match=r"give one of ignore, raise \(did you mean 'raise'\?\)"):
        parameters.one_of("policy", "rise", ["raise", "ignore"])


@pytest.mark.parametrize("value", [None, 5, ["raise"]])
def test_one_of_refuses_other_types(value):
    with pytest.raises(InvalidParameter):
        parameters.one_of("policy", value, ["raise"])
