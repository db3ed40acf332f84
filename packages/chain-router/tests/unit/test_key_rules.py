"""Which value of a call is its key."""

from __future__ import annotations

import functools

import pytest

from celery_chain_router.key_rules import KeyRules
from celery_toolkit_core.canonical import key_bytes


def by_position(order_id, customer_id="c0", *rest, region="eu", **others):
    """Stands in for a task: what counts is the signature."""


def test_first_positional_argument_then_task_name():
    rules = KeyRules(None, None)
    assert rules.found("t", ("a", "b"), {"x": 1})[1] == key_bytes("a")
    assert rules.found("t", (), {"x": 1})[1] == key_bytes("t")
    assert rules.found("t", None, None)[1] == key_bytes("t")


def test_none_falls_to_the_next_rule():
    rules = KeyRules("customer_id", lambda name, args, kwargs: None)
    assert rules.found("t", (None,), {"customer_id": None})[1] == key_bytes("t")
    assert rules.found("t", ("a",), {"customer_id": None})[1] == key_bytes("a")
    assert rules.found("t", ("a",), {"customer_id": 0})[1] == key_bytes(0)


def test_the_extractor_comes_first_and_cannot_change_the_call():
    def extract(name, args, kwargs):
        kwargs.clear()
        return ("k", name, len(args))

    kwargs = {"customer_id": "c1"}
    assert KeyRules("customer_id", extract).found("t", ["a"], kwargs)[1] == key_bytes(("k", "t", 1))
    assert kwargs == {"customer_id": "c1"}


@pytest.mark.parametrize(
    ("args", "kwargs", "key"),
    [
        (("o1", "c1"), {}, "c1"),
        (("o1",), {"customer_id": "c1"}, "c1"),
        (("o1",), {}, "c0"),
        ((), {"order_id": "o1"}, "c0"),
    ],
)
def test_the_argument_is_found_by_name_position_or_default(args, kwargs, key):
    assert KeyRules("customer_id", None).found("t", args, kwargs, by_position)[1] == key_bytes(key)


def test_keyword_only_and_variable_arguments():
    assert KeyRules("region", None).found("t", ("o1",), {}, by_position)[1] == key_bytes("eu")
    assert KeyRules("region", None).found("t", ("o1",), {"region": "us"}, by_position)[1] == key_bytes("us")
    assert KeyRules("rest", None).found("t", ("o1", "c1", "r"), {}, by_position)[1] == key_bytes("o1")
    assert KeyRules("others", None).found("t", ("o1",), {}, by_position)[1] == key_bytes("o1")


def test_two_tasks_of_one_name_do_not_share_a_signature():
    rules = KeyRules("customer_id", None)
    other = functools.partial(lambda customer_id, order_id: None)
    assert rules.found("t", ("o1", "c1"), {}, by_position)[1] == key_bytes("c1")
    assert rules.found("t", ("c1", "o1"), {}, other)[1] == key_bytes("c1")


def test_an_extractor_that_raises_is_logged_once_per_task(caplog):
    def extract(name, args, kwargs):
        raise KeyError(kwargs["secret"])

    rules = KeyRules(None, extract)
    for _ in range(3):
        assert rules.found("t", ("a",), {"secret": "hunter2"})[1] == key_bytes("a")
    assert rules.found("u", ("a",), {"secret": "hunter2"})[1] == key_bytes("a")
    assert [record.task for record in caplog.records] == ["t", "u"]
    assert "hunter2" not in caplog.text


def test_a_coroutine_is_no_key(caplog):
    """Under ``filterwarnings = error`` one that is never awaited and never closed would fail this test."""

    async def extract(name, args, kwargs):
        return "x"

    assert KeyRules(None, extract).found("t", ("a",), {})[1] == key_bytes("a")
    assert len(caplog.records) == 1


def test_a_value_without_canonical_form_is_passed_over(caplog):
    class Odd:
        def __json__(self):
            raise ValueError("no")

    rules = KeyRules("customer_id", None)
    for value in (object(), Odd()):
        for _ in range(2):
            assert rules.found("t", ("a",), {"customer_id": value})[1] == key_bytes("a")
    assert len(caplog.records) == 1


def test_text_that_cannot_be_encoded_is_a_key_all_the_same():
    rules = KeyRules(None, None)
    assert rules.found("t", ("\ud800",), {})[1] != rules.found("t", ("\ud801",), {})[1]
