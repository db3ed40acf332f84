"""Who has which partition: signs of life, fair shares, hand-over, fences; on a real server."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from celery_chain_router.errors import PartitionCountDiffers, WorkerNameTaken
from celery_chain_router.membership import Member, Membership
from celery_chain_router.ownership import Ownership
from celery_toolkit_core.keys import KeySpace
from celery_toolkit_testkit import eventually

KEYS = KeySpace("chain-router", "test")


class Worker:
    """One worker process, as the scripts see it."""

    def __init__(self, client, name, *, token=None, count=64, weight=1.0, lease=30.0):
        self.name, self.token = name, token or f"token-of-{name}"
        self.record = Member(name, "up", weight).record()
        self.ownership = Ownership(Membership(client, KEYS, lease=lease), count)
        self.held = {}

    def beat(self, known=None):
        beat = self.ownership.beat(self.name, self.token, self.record, known)
        if beat.owned is not None:
            self.held = dict(beat.owned)
        return beat

    def acquire(self):
        self.held = self.ownership.acquire(self.name, self.token)
        return set(self.held)

    def release_what_is_not_meant_for_it(self):
        beat = self.beat()
        goes = {number: fence for number, fence in beat.owned.items() if number not in beat.targets}
        self.ownership.release(self.token, goes)
        return set(goes)


@pytest.fixture
def start(redis_client):
    return lambda name, **options: Worker(redis_client, name, **options)


def settle(*workers):
    """Let all of them do what they do in a second; who has what then."""
    for worker in workers:
        worker.beat()
    for worker in workers:
        worker.release_what_is_not_meant_for_it()
    owners = {number: worker.name for worker in workers for number in worker.acquire()}
    for worker in workers:
        worker.beat()
        assert all(owners.get(number, worker.name) == worker.name for number in worker.held)
    return owners


def test_the_first_worker_gets_all_and_the_second_half(start):
    one = start("one")
    assert settle(one) == dict.fromkeys(range(64), "one")
    owners = settle(one, start("two"))
    assert Counter(owners.values()) == {"one": 32, "two": 32}


def test_shares_are_even_at_256_partitions_and_10_workers(start):
    workers = [start(f"w{number}", count=256) for number in range(10)]
    shares = Counter(settle(*workers).values())
    assert max(shares.values()) / (256 / 10) <= 1.06
    assert len(shares) == 10


def test_a_join_and_a_leave_move_only_what_they_must(start):
    workers = [start(f"w{number}", count=256) for number in range(10)]
    before = settle(*workers)
    eleventh = start("w10", count=256)
    joined = settle(*workers, eleventh)
    moved = [number for number in before if joined[number] != before[number]]
    assert {joined[number] for number in moved} == {"w10"}
    assert len(moved) == 256 // 11
    leaver = workers.pop(3)
    leaver.ownership.membership.leave(leaver.name, leaver.token)
    left = settle(*workers, eleventh)
    moved = [number for number in joined if left[number] != joined[number]]
    assert {joined[number] for number in moved} == {"w3"}
    shares = Counter(left.values())
    assert max(shares.values()) - min(shares.values()) <= 1


def test_a_worker_of_weight_2_gets_twice_as_many(start):
    owners = settle(start("one"), start("two", weight=2.0), start("three"))
    assert Counter(owners.values()) == {"one": 16, "two": 32, "three": 16}


def test_more_workers_than_partitions(start):
    owners = settle(*[start(f"w{number}", count=2) for number in range(5)])
    assert len(set(owners.values())) == 2


def test_a_slot_that_comes_back_gets_its_own_again(start):
    """Whatever was moved meanwhile: after a rolling restart that took its time, everything is where it was."""
    workers = [start(f"w{number}") for number in range(4)]
    before = settle(*workers)
    for number, old in enumerate(workers):
        old.ownership.membership.leave(old.name, old.token)
        others = [worker for worker in workers if worker is not old]
        without = settle(*others)
        assert set(without.values()) == {worker.name for worker in others}
        workers[number] = start(old.name, token=f"another-{number}")
        assert settle(*workers) == before


def test_the_partitions_of_a_slot_that_is_restarted_wait_for_it(start):
    one, two = start("one"), start("two")
    before = settle(one, two)
    assert one.ownership.stand_down("one", one.token, 30.0)
    assert settle(two) == {number: name for number, name in before.items() if name == "two"}
    one.ownership.membership.leave("one", one.token)
    again = start("one", token="another")
    again.beat()
    assert again.acquire() == {number for number, name in before.items() if name == "one"}
    assert settle(again, two) == before


def test_the_wait_ends(start):
    one, two = start("one"), start("two")
    settle(one, two)
    one.ownership.stand_down("one", one.token, 0.3)
    one.ownership.membership.leave("one", one.token)
    # Nobody changes anything: whoever looks next ends the wait.
    eventually(lambda: two.ownership.look() and len(two.acquire()) == 64)


def test_without_grace_others_take_over_as_soon_as_it_lets_go(start):
    one, two = start("one"), start("two")
    settle(one, two)
    one.ownership.stand_down("one", one.token, 0.0)
    two.beat()
    assert len(two.acquire()) == 32
    one.release_what_is_not_meant_for_it()
    assert len(two.acquire()) == 64


def test_a_partition_is_not_given_while_its_owner_has_it(start):
    one = start("one")
    settle(one)
    two = start("two")
    two.beat()
    assert two.acquire() == set()
    one.beat()
    given_up = one.release_what_is_not_meant_for_it()
    assert len(given_up) == 32
    assert two.acquire() == given_up


def test_every_ownership_has_a_higher_fence(start):
    one, two = start("one", count=1), start("two", count=1)
    settle(one)
    first = one.held[0]
    one.ownership.membership.leave("one", one.token)
    two.beat()
    two.acquire()
    second = two.held[0]
    two.ownership.release(two.token, two.held)
    two.acquire()
    assert first < second < two.held[0]


def test_a_sign_of_life_extends_all_in_one_script_and_a_dead_worker_is_followed(start, redis_client):
    one, two = start("one", lease=2.0), start("two", lease=30.0)
    settle(one, two)

    def scripts():
        return redis_client.info("commandstats")["cmdstat_evalsha"]["calls"]

    before, beats = scripts(), 0
    end = time.monotonic() + 3.0
    while time.monotonic() < end:
        assert not one.beat().fresh
        beats += 1
        time.sleep(0.05)
    assert scripts() - before == beats
    assert len(one.beat().owned) == 32
    eventually(lambda: two.ownership.look() and len(two.acquire()) == 64)
    # The dead one comes back: it has lost its name, and with it everything.
    beat = one.beat()
    assert beat.fresh
    assert beat.owned == {}
    assert one.ownership.release(one.token, two.held) == 0
    assert len(two.beat().owned) == 64


def test_a_short_answer_when_nothing_has_changed(start):
    one = start("one")
    settle(one)
    epoch = one.beat().epoch
    assert one.beat(epoch).owned is None
    start("two").beat()
    assert len(one.beat(epoch).targets) == 32


def test_replays_change_nothing(start):
    one, two = start("one"), start("two")
    settle(one, two)
    held = dict(one.held)
    epoch = one.beat().epoch
    assert one.ownership.acquire("one", one.token) == held
    assert one.beat().epoch == epoch
    assert one.ownership.release(one.token, {0: held.get(0, 0) + 1}) == 0
    some = dict([held.popitem()])
    assert one.ownership.release(one.token, some) == 1
    assert one.ownership.release(one.token, some) == 0


def test_a_name_has_one_living_owner(start):
    start("one").beat()
    with pytest.raises(WorkerNameTaken):
        start("one", token="another").beat()


def test_another_number_of_partitions_is_refused_while_others_live(start):
    one = start("one", count=64)
    settle(one)
    with pytest.raises(PartitionCountDiffers) as caught:
        start("two", count=128).beat()
    assert (caught.value.partitions, caught.value.others) == (128, 64)
    one.ownership.membership.leave("one", one.token)
    assert len(settle(start("two", count=128))) == 128


def test_nobody_is_there(start, redis_client):
    one = start("one")
    assert one.ownership.view() == []
    assert one.acquire() == set()
    settle(one)
    one.ownership.membership.leave("one", one.token)
    row = one.ownership.view()[0]
    assert (row.owner, row.lives, row.target) == ("one", False, "one")
    assert all(redis_client.pttl(key) > 0 for key in redis_client.scan_iter())


def test_a_server_that_lost_its_data_is_filled_again(start, redis_client):
    one = start("one")
    settle(one)
    last = max(one.held.values())
    redis_client.flushall()
    beat = one.beat()
    assert beat.fresh
    assert beat.owned == {}
    assert len(one.acquire()) == 64
    assert min(one.held.values()) > last


def test_a_full_server_lets_signs_of_life_and_releases_through(start, redis_client):
    one = start("one")
    settle(one)
    epoch = one.beat().epoch
    redis_client.config_set("maxmemory", 1)
    try:
        assert one.beat(epoch).owned is None
        assert one.ownership.release(one.token, one.held) == 64
    finally:
        redis_client.config_set("maxmemory", 0)
