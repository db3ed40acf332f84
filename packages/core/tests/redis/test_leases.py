"""Leases on a real server with its real clock, and around plain code."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import redis

from celery_toolkit_core.leases import Held, Lease, LeaseHeld, Leases
from celery_toolkit_testkit import eventually


def test_plain_code_holds_and_releases(redis_client: redis.Redis, keys: Any) -> None:
    leases = Leases(redis_client, keys)
    with leases.hold("report") as lease:
        assert [holder.token for holder in leases.inspect("report").holders] == [lease.token]
        refused = leases.acquire("report", "other")
        assert isinstance(refused, Held)
        assert not refused
        assert refused.holder == lease.token
        assert 0 < refused.remaining <= 30
    assert leases.acquire("report", "other")


def test_plain_code_releases_when_it_raises(redis_client: redis.Redis, keys: Any) -> None:
    leases = Leases(redis_client, keys)
    with pytest.raises(ZeroDivisionError), leases.hold("report"):
        raise ZeroDivisionError
    assert leases.inspect("report").holders == ()


def test_plain_code_waits_for_a_permit_until_its_deadline(redis_client: redis.Redis, keys: Any) -> None:
    leases = Leases(redis_client, keys)
    leases.acquire("report", "first")
    with pytest.raises(LeaseHeld) as held, leases.hold("report", wait=0.05):
        raise AssertionError("nobody else may be here")
    assert (held.value.name, held.value.holder) == ("report", "first")
    leaving = threading.Timer(0.3, lambda: leases.release("report", "first"))
    leaving.start()
    with leases.hold("report", wait=60):
        leaving.join()


def test_who_was_overtaken_cannot_renew_or_release(redis_client: redis.Redis, keys: Any) -> None:
    leases = Leases(redis_client, keys, ttl=0.2)
    leases.acquire("report", "frozen")
    heir = eventually(lambda: leases.acquire("report", "heir", ttl=60))
    assert isinstance(heir, Lease)
    assert not leases.renew("report", "frozen")
    assert not leases.release("report", "frozen")
    assert [holder.token for holder in leases.inspect("report").holders] == ["heir"]


def test_a_fence_rises_over_the_loss_of_all_data(redis_client: redis.Redis, keys: Any) -> None:
    leases = Leases(redis_client, keys)
    before = leases.acquire("report", "a")
    redis_client.flushall()
    after = leases.acquire("report", "b")
    assert isinstance(before, Lease)
    assert isinstance(after, Lease)
    assert after.fence > before.fence


def test_a_fence_rises_when_the_clock_steps_back(redis_client: redis.Redis, virtual_clock: Any, keys: Any) -> None:
    leases = Leases(redis_client, keys, ttl=60.0)
    fences = []
    for token in "abc":
        lease = leases.acquire("report", token)
        assert isinstance(lease, Lease)
        fences.append(lease.fence)
        leases.release("report", token)
        virtual_clock.advance(300_000_000)
        virtual_clock.advance(-400_000_000)
    assert fences == sorted(set(fences))


def test_crashed_holders_leave_nothing_behind(redis_client: redis.Redis, virtual_clock: Any, keys: Any) -> None:
    leases = Leases(redis_client, keys, ttl=1.0)
    for number in range(50):
        assert leases.acquire("report", f"crashed-{number}")
        virtual_clock.advance(1_500_000)
    assert sum(redis_client.hlen(key) for key in redis_client.scan_iter("*:lease-fence:*")) <= 2
    virtual_clock.advance(700_000_000)
    assert list(redis_client.scan_iter("{*")) == []
