"""Membership on a real server: one owner per name, leases, epochs, and what a restart of the server does."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from celery_chain_router.errors import WorkerNameTaken
from celery_chain_router.membership import Member, Membership
from celery_chain_router.traffic import Traffic
from celery_toolkit_core.keys import KeySpace
from celery_toolkit_testkit import eventually

KEYS = KeySpace("chain-router", "test")


@pytest.fixture
def members(redis_client) -> Membership:
    return Membership(redis_client, KEYS, lease=30)


def record(name: str = "", **fields) -> str:
    return Member(name, "up", **fields).record()


def end_lease(client, name: str) -> None:
    """What the passing of time does to the lease of a dead worker."""
    client.zadd(KEYS.key("ends"), {name: 1})


def test_a_member_is_seen_with_all_it_says(members):
    joined = members.join(["worker1"], "t1", record(weight=2.5, holder="worker1@h (pid 1)", companions=(".wake",)))
    assert (joined.name, joined.fresh) == ("worker1", True)
    [member] = members.view().members.values()
    assert (member.name, member.state, member.weight) == ("worker1", "up", 2.5)
    assert (member.holder, member.companions) == ("worker1@h (pid 1)", (".wake",))
    assert 29 < member.seconds <= 30


def test_a_sign_of_life_raises_no_epoch(members):
    members.join(["worker1"], "t1", record())
    view = members.view()
    assert members.join(["worker1"], "t1", record()).fresh is False
    assert members.view(view) is view
    members.join(["worker1"], "t1", record(weight=2))
    assert members.view(view).epoch > view.epoch


def test_traffic_comes_with_a_sign_of_life_raises_no_epoch_and_ends_with_the_member(members, redis_client):
    members.join(["worker1"], "t1", record())
    members.join(["worker2"], "t2", record())
    view = members.view()
    members.join(["worker1"], "t1", record(), traffic=Traffic(2.0).record())
    members.join(["worker2"], "t2", record(), traffic="poisoned")
    assert members.traffic() == {"worker1": Traffic(2.0), "worker2": Traffic()}
    assert members.view(view) is view
    members.leave("worker2", "t2")
    end_lease(redis_client, "worker1")
    members.join(["worker3"], "t3", record())
    assert members.traffic() == {}


def test_a_name_has_one_living_owner(members):
    members.join(["worker1"], "t1", record(holder="a@h (pid 1)"))
    with pytest.raises(WorkerNameTaken, match=r"a@h \(pid 1\)") as caught:
        members.join(["worker1"], "t2", record())
    assert caught.value.name == "worker1"
    assert 29 < caught.value.remaining <= 30


def test_a_dead_owners_name_is_free(members, redis_client):
    members.join(["worker1"], "t1", record())
    end_lease(redis_client, "worker1")
    assert members.join(["worker1"], "t2", record()).fresh
    with pytest.raises(WorkerNameTaken):
        members.join(["worker1"], "t1", record())
    assert not members.leave("worker1", "t1")


def test_slots_are_the_lowest_free_ones(members, redis_client):
    assert [members.join([], f"t{n}", record(), slots="w").name for n in range(3)] == ["w1", "w2", "w3"]
    assert members.join(["a"], "t3", record(), slots="w").name == "a"
    assert members.join(["a"], "t4", record(), slots="w").name == "w4"
    members.leave("w2", "t1")
    assert members.join([], "t5", record(), slots="w").name == "w2"
    end_lease(redis_client, "w1")
    assert members.join([], "t6", record(), slots="w").name == "w1"
    # A replayed call gets the slot it has.
    assert members.join([], "t6", record(), slots="w").name == "w1"


def test_who_lives_takes_the_dead_off(members, redis_client):
    members.join(["worker1"], "t1", record())
    members.join(["worker2"], "t2", record())
    before = members.view()
    end_lease(redis_client, "worker1")
    members.join(["worker2"], "t2", record())
    after = members.view(before)
    assert after.epoch > before.epoch
    assert [member.name for member in after.in_state("gone")] == ["worker1"]
    assert [member.name for member in after.in_state("up")] == ["worker2"]


def test_a_worker_taken_for_dead_comes_back_with_its_next_sign_of_life(members, redis_client):
    members.join(["worker1"], "t1", record())
    members.join(["worker2"], "t2", record())
    end_lease(redis_client, "worker1")
    members.join(["worker2"], "t2", record())
    assert members.join(["worker1"], "t1", record()).fresh
    assert {member.name for member in members.view().in_state("up")} == {"worker1", "worker2"}
    assert members.view().in_state("gone") == []


def test_leaving_and_draining(members):
    members.join(["worker1"], "t1", record())
    assert members.drain("worker1", "somebody else") is False
    assert members.drain("worker1", "t1") is True
    view = members.view()
    assert members.drain("worker1") is True
    assert members.view(view) is view
    # A sign of life does not end the draining; a new process of that name does.
    members.join(["worker1"], "t1", record())
    assert members.view().members["worker1"].state == "draining"
    assert members.leave("worker1", "t1") is True
    assert members.leave("worker1", "t1") is False
    assert members.view().members["worker1"].state == "gone"
    assert members.drain("worker1") is False
    members.join(["worker1"], "t2", record())
    assert members.view().members["worker1"].state == "up"


def test_a_server_that_lost_its_data_is_rebuilt_with_a_higher_epoch(members, redis_client):
    members.join(["worker1"], "t1", record())
    before = members.view()
    redis_client.flushall()
    redis_client.script_flush()
    assert members.view(before).members == {}
    assert members.join(["worker1"], "t1", record()).fresh
    assert members.view(before).epoch > before.epoch


def test_every_key_has_an_end_and_the_long_dead_are_forgotten(members, redis_client):
    members.join(["worker1"], "t1", record())
    members.join(["worker2"], "t2", record())
    members.join(["worker2"], "t2", record(), traffic=Traffic(1.0).record())
    members.drain("worker2")
    members.leave("worker1", "t1")
    keys = redis_client.keys("*")
    assert len(keys) == 7
    assert all(redis_client.pttl(key) > 6 * 24 * 3600 * 1000 for key in keys)
    redis_client.zadd(KEYS.key("gone"), {"worker1": 1})
    members.join(["worker2"], "t2", record())
    assert set(members.view().members) == {"worker2"}


def test_a_server_without_memory_still_takes_signs_of_life(members, redis_client):
    members.join(["worker1"], "t1", record())
    members.join(["worker2"], "t2", record())
    redis_client.config_set("maxmemory", 1)
    try:
        members.join(["worker1"], "t1", record())
        assert members.leave("worker2", "t2")
        assert set(members.view().members) == {"worker1", "worker2"}
    finally:
        redis_client.config_set("maxmemory", 0)


def test_a_lease_ends_by_the_servers_clock(redis_client):
    members = Membership(redis_client, KEYS, lease=0.2)
    members.join(["worker1"], "t1", record())
    eventually(lambda: members.join(["worker2"], "t2", record()) and members.view().in_state("gone"))


NAMES = ["a", "b", "c"]
TOKENS = ["t1", "t2", "t3"]


class Model(RuleBasedStateMachine):
    """The scripts against a plain model: who owns which name, in which state."""

    client = None

    def __init__(self):
        super().__init__()
        self.client.flushall()
        self.members = Membership(self.client, KEYS, lease=1000)
        self.owner: dict[str, str] = {}
        self.state: dict[str, str] = {}
        self.ended: set[str] = set()
        self.epoch = 0

    def reap(self):
        for name in self.ended:
            del self.owner[name]
            self.state[name] = "gone"
        self.ended.clear()

    @rule(name=st.sampled_from(NAMES), token=st.sampled_from(TOKENS))
    def join(self, name, token):
        mine = self.owner.get(name) == token
        if name in self.owner and name not in self.ended and not mine:
            with pytest.raises(WorkerNameTaken):
                self.members.join([name], token, "{}")
            return
        assert self.members.join([name], token, "{}").fresh is not mine
        self.ended.discard(name)
        if not mine:
            self.state[name] = "up"
        self.owner[name] = token
        self.reap()

    @rule(name=st.sampled_from(NAMES), token=st.sampled_from(TOKENS))
    def leave(self, name, token):
        left = self.members.leave(name, token)
        assert left is (self.owner.get(name) == token)
        if left:
            del self.owner[name]
            self.ended.discard(name)
            self.state[name] = "gone"

    @rule(name=st.sampled_from(NAMES))
    def drain(self, name):
        assert self.members.drain(name) is (name in self.owner)
        if name in self.owner:
            self.state[name] = "draining"

    @rule(name=st.sampled_from(NAMES))
    def die(self, name):
        if name in self.owner:
            end_lease(self.client, name)
            self.ended.add(name)

    @invariant()
    def all_agree(self):
        view = self.members.view()
        assert {member.name: member.state for member in view.members.values()} == self.state
        assert view.epoch >= self.epoch
        self.epoch = view.epoch


def test_scripts_against_a_model(redis_client):
    Model.client = redis_client
    Model.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
    Model.TestCase().runTest()
