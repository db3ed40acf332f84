"""Limits on a real server with its real clock: processes at once, memory, time, plain code."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import redis

from celery_toolkit_core.errors import InvalidParameter
from celery_toolkit_core.limits import Concurrency, Limiter, LimitReached, RateLimit, parse_rate
from celery_toolkit_testkit import eventually

TIMES, PER = 10, 0.4


def hammered(url: str, how: str) -> list[int]:
    """What eight processes at once were granted."""
    program = Path(__file__).with_name("hammer.py")
    run = subprocess.run(
        [sys.executable, str(program), url, how, str(TIMES), str(PER), "2.5"],
        stdout=subprocess.PIPE,
        check=True,
        timeout=120,
    )
    stamps: list[int] = json.loads(run.stdout)
    return stamps


def busiest_window(stamps: list[int], per: float) -> int:
    """The most starts in any window, both its ends included."""
    return max(sum(first <= stamp <= first + per * 1e6 for stamp in stamps) for first in stamps)


def test_eight_processes_never_exceed_a_limit_in_any_window(redis_url: str) -> None:
    stamps = hammered(redis_url, "limiter")
    assert len(set(stamps)) == len(stamps)
    assert busiest_window(stamps, PER) == TIMES, "and the limit is used to the full"


def test_the_judge_of_windows_sees_a_count_then_add(redis_url: str) -> None:
    """The check of the check: a limit that is not decided in one script lets more through."""
    assert busiest_window(hammered(redis_url, "naive"), PER) > TIMES


def test_a_remembered_start_takes_at_most_20_bytes(redis_client: redis.Redis, keys: Any) -> None:
    limiter, demand = Limiter(redis_client, keys), RateLimit((100_000, 3600.0), name="big").demand(cost=9)
    for number in range(2000):
        assert limiter.take([demand], token=str(number))
    assert redis_client.memory_usage(demand.keys(keys)[0], samples=0) <= 20 * 2000


def test_a_limit_is_decided_in_the_same_number_of_commands_however_many_keys_there_are(
    redis_client: redis.Redis, keys: Any
) -> None:
    limiter, limit = Limiter(redis_client, keys), RateLimit("100000/h", name="parts")

    def commands(part: str) -> int:
        redis_client.config_resetstat()
        limiter.take([limit.demand(part)], token="t")
        return sum(row["calls"] for row in redis_client.info("commandstats").values())

    for part in ("warm", "warmer"):  # the server knows the script, and every connection is there
        limiter.take([limit.demand(part)], token="t")
        redis_client.ping()
    alone = commands("first")
    for number in range(1000):
        limiter.take([limit.demand(str(number))], token="t")
    assert commands("last") == alone


def test_a_limit_frees_itself_with_the_servers_own_clock(redis_client: redis.Redis, keys: Any) -> None:
    limiter, demand = Limiter(redis_client, keys), RateLimit("1/1s", name="short").demand()
    assert limiter.take([demand], token="a")
    assert eventually(lambda: limiter.take([demand], token="b")).granted
    key = demand.keys(keys)[0]
    assert 0 < redis_client.pttl(key) <= 1002
    eventually(lambda: not redis_client.exists(key), message="an idle log goes away")


def test_all_or_nothing(redis_client: redis.Redis, keys: Any) -> None:
    limiter = Limiter(redis_client, keys)
    wide, full = RateLimit("5/h", name="wide").demand(), Concurrency(1, name="one").demand()
    assert limiter.take([full], token="holder")
    refused = limiter.take([wide, full], token="late")
    assert not refused
    assert refused.blocked_by == ("one",)
    assert refused.retry_after is not None
    assert 0 < refused.retry_after <= 30
    assert limiter.peek([wide])[0].used == 0


def test_a_token_that_was_released_is_charged_anew(redis_client: redis.Redis, keys: Any) -> None:
    limiter, demands = Limiter(redis_client, keys), [RateLimit("5/h", name="api").demand()]
    first = limiter.take(demands, token="t")
    assert limiter.take(demands, token="t") == first
    limiter.release(demands, token="t")
    assert limiter.take(demands, token="t") != first
    assert limiter.peek(demands)[0].used == 2


def test_parts_count_apart(redis_client: redis.Redis, keys: Any) -> None:
    limiter, limit = Limiter(redis_client, keys), RateLimit("1/h", name="per-tenant")
    assert limiter.take([limit.demand("acme")], token="a")
    assert limiter.take([limit.demand("umbrella")], token="b")
    assert not limiter.take([limit.demand("acme")], token="c")


def test_plain_code_waits_for_a_place_and_settles(redis_client: redis.Redis, keys: Any) -> None:
    limiter = Limiter(redis_client, keys)
    demands = [RateLimit((100, 3600.0), name="words").demand(cost=60), Concurrency(1, name="one").demand()]
    with limiter.hold(demands) as grant:
        assert grant.settle(10)
        assert grant.renew()
        with pytest.raises(LimitReached) as reached, limiter.hold(demands, wait=0.05):
            raise AssertionError("nobody else may be here")
        assert reached.value.blocked_by == ("one",)
        leaving = threading.Timer(0.3, lambda: limiter.release(grant.demands, token=grant.token))
        leaving.start()
        with limiter.hold(demands, wait=60) as second:
            assert second.stamp > grant.stamp
        leaving.join()
    assert [state.used for state in limiter.peek(demands)] == [70, 0]


def test_a_penalty_refuses_everybody_until_it_has_passed(redis_client: redis.Redis, keys: Any) -> None:
    limiter, demand = Limiter(redis_client, keys), RateLimit("5/s", name="api").demand()
    limiter.penalise([demand], retry_after=0.4)
    refused = limiter.take([demand], token="a")
    assert refused.retry_after is not None
    assert 0 < refused.retry_after <= 0.4
    started = time.monotonic()
    with limiter.hold([demand], wait=60):
        assert time.monotonic() - started > refused.retry_after - 0.1


def test_a_value_is_changed_for_one_part_and_returns(redis_client: redis.Redis, keys: Any) -> None:
    limiter, limit = Limiter(redis_client, keys), RateLimit("5/h", name="api")
    limiter.override(RateLimit("7/h", name="api"))
    limiter.override(RateLimit("9/h", name="api", paused=True), "acme", lasting=2.0)
    other, acme = limiter.peek([limit.demand("other"), limit.demand("acme")])
    assert (other.times, acme.times) == (7, 0)
    assert acme.retry_after is not None
    assert 0 < acme.retry_after <= 2.0
    eventually(lambda: limiter.peek([limit.demand("acme")])[0].times == 7)
    limiter.restore(limit)
    assert limiter.peek([limit.demand("other")])[0].times == 5


def test_a_paused_limit_names_no_time(redis_client: redis.Redis, keys: Any) -> None:
    limiter = Limiter(redis_client, keys)
    for limit in (RateLimit("5/h", name="p", paused=True), Concurrency(5, name="p", paused=True)):
        refused = limiter.take([limit.demand()], token="a")
        assert (refused.granted, refused.retry_after, refused.blocked_by) == (False, None, ("p",))


def test_the_same_limit_twice_is_refused(redis_client: redis.Redis, keys: Any) -> None:
    limiter, limit = Limiter(redis_client, keys), RateLimit("5/h", name="api")
    with pytest.raises(InvalidParameter, match="once"):
        limiter.take([limit.demand("a"), limit.demand("a")], token="t")
    with pytest.raises(InvalidParameter, match="demands"):
        limiter.take([], token="t")
    assert redis_client.dbsize() == 0
    assert parse_rate("5/h") == (limit.times, limit.per)
