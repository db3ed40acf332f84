from __future__ import annotations

import math
from datetime import timedelta

import pytest
from celery import Celery

from celery_heimdall import Concurrency, HeimdallTask, RateLimit, Strategy, Unique
from celery_heimdall.options import parse
from celery_toolkit_core.errors import InvalidParameter

NO_SECONDS = (0, -1, math.nan, math.inf, True, "5", None)


def test_the_dict_and_the_typed_form_give_the_same_options():
    assert parse({"unique": True, "unique_timeout": 60}).unique == Unique(ttl=60)
    assert parse({"unique": True, "unique_wait_for_expiry": True}).unique == Unique(until="expiry")
    assert parse({"times": 2, "per": 60}).limits == (RateLimit("2/m"),)
    assert parse({"rate_limit": RateLimit((2, 60))}).limits == parse(limits=[RateLimit("2/m")]).limits
    assert parse({"rate_limit": (2, timedelta(minutes=1))}).limits == (RateLimit("2/m"),)


def test_unique_false_means_not_unique():
    assert parse({"unique": False, "unique_timeout": 5}).unique is None


def test_the_dicts_key_serves_the_lock_and_the_limit():
    options = parse({"unique": True, "times": 1, "per": 1, "key": "one"})
    assert options.unique.key == "one"
    assert options.limits[0].key == "one"


def test_the_default_strategy_is_to_park():
    assert Strategy.DEFAULT is Strategy.PARK
    assert RateLimit((1, 1)).strategy is Strategy.PARK
    assert Concurrency(1, strategy="raise").strategy is Strategy.RAISE


@pytest.mark.parametrize(
    "stopped", [lambda: RateLimit((0, 1)), lambda: Concurrency(0), lambda: parse({"times": 0, "per": 1})]
)
def test_a_limit_of_zero_names_the_way_to_stop_one(stopped):
    with pytest.raises(InvalidParameter, match="paused=True"):
        stopped()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"uniqe": True}, "unique"),
        ({"unique": 1}, "unique"),
        ({"unique": "yes"}, "unique"),
        *(
            ({"unique": True, "unique_timeout": bad}, "unique_timeout")
            for bad in (0, -1, math.nan, math.inf, True, "5", None)
        ),
        ({"times": 2}, "per"),
        ({"per": 2}, "times"),
        *(({"times": bad, "per": 1}, "times") for bad in (0, -1, 1.5, True, "2", None)),
        *(({"times": 1, "per": bad}, "per") for bad in NO_SECONDS),
        *(({"unique_lock_timeout": bad}, "unique_lock_timeout") for bad in (-1, math.nan, True, "5", None)),
        ({"unique_lock_blocking": 1}, "unique_lock_blocking"),
        ({"unique": True, "unique_raises": None}, "unique_raises"),
        ({"rate_limit_prefix": None}, "rate_limit_prefix"),
        ({"rate_limit": (1, 1), "times": 1, "per": 1}, "rate_limit"),
        ({"rate_limit": "often"}, "rate_limit"),
        ({"key": ""}, "key"),
        ({"key": 5}, "key"),
        ({"unique": True, "lock_prefix": ""}, "lock_prefix"),
        ("unique", "heimdall"),
    ],
)
def test_an_impossible_dict_is_refused_at_decoration(options, named):
    with pytest.raises(InvalidParameter, match=named):
        parse(options)


@pytest.mark.parametrize(
    "wrong",
    [
        *(lambda bad=bad: Unique(ttl=bad) for bad in NO_SECONDS if bad is not None),
        *(lambda bad=bad: RateLimit((1, bad)) for bad in NO_SECONDS),
        *(lambda bad=bad: RateLimit((bad, 1)) for bad in (-1, 1.5, True, "2", None)),
        *(lambda bad=bad: RateLimit("1/s", cost=bad) for bad in (-1, 1.5, True, "2", None)),
        lambda: Unique(until="never"),
        lambda: Unique(on_conflict="replace"),
        lambda: Unique(by=()),
        lambda: Unique(by="a", key="b"),
        lambda: Unique(while_executing=1),
        lambda: RateLimit("0/m"),
        lambda: RateLimit((1, 1), strategy="prak"),
        lambda: RateLimit((1, 1), paused=1),
        lambda: Concurrency(1, strategy=None),
        lambda: RateLimit((1, 1), name=""),
        lambda: Concurrency(0),
        lambda: Concurrency(True),
        lambda: Concurrency(1.5),
        lambda: parse(unique=True),
        lambda: parse({"unique": True}, Unique()),
        lambda: parse(limits=[5]),
    ],
)
def test_an_impossible_typed_option_is_refused(wrong):
    with pytest.raises(InvalidParameter):
        wrong()


def test_a_coroutine_is_no_key_function():
    async def key(args, kwargs):
        return "x"

    with pytest.raises(InvalidParameter, match="coroutine"):
        Unique(key=key)


def declare(**options):
    app = Celery("declared", set_as_current=False)

    @app.task(base=HeimdallTask, shared=False, **options)
    def report(customer_id, page=1):
        return None

    app.finalize()
    return app.tasks[report.name]


def test_a_key_argument_that_the_task_lacks_is_refused_with_the_near_one():
    with pytest.raises(InvalidParameter, match="customer_id"):
        declare(unique=Unique(by="customer"))
    with pytest.raises(InvalidParameter, match="no such argument"):
        declare(limits=[RateLimit("1/s", by="tenant")])


def test_join_needs_results():
    with pytest.raises(InvalidParameter, match="ignore_result"):
        declare(unique=Unique(on_conflict="join"), ignore_result=True)


def test_an_unknown_option_is_refused_when_the_task_is_made():
    with pytest.raises(InvalidParameter, match="unique_timeout"):
        declare(heimdall={"unique_timout": 5})


@pytest.mark.parametrize(
    "option",
    [
        {"unqiue": Unique()},
        {"limit": [RateLimit("1/s")]},
        {"rate_limit": RateLimit("1/s")},
        {"concurrency": Concurrency(2)},
    ],
    ids=lambda option: next(iter(option)),
)
def test_an_option_under_another_name_is_refused_and_the_task_named(option):
    with pytest.raises(InvalidParameter, match=r"limits=\[RateLimit.*; task .*report"):
        declare(**option)


def test_a_limit_may_be_kept_under_a_name_of_its_own():
    class Caller(HeimdallTask):
        abstract = True
        API = RateLimit("1/s")
        limits = (API,)

    assert Caller.heimdall_config.active
