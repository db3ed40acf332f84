"""A worker's place on the ring: waiting for a name that its dead owner still has."""

from __future__ import annotations

import threading

import pytest

from celery_chain_router.errors import WorkerNameTaken
from celery_chain_router.membership import Member, Membership
from celery_chain_router.presence import Presence
from celery_toolkit_core.keys import KeySpace
from celery_toolkit_testkit import eventually


@pytest.fixture
def members(redis_client) -> Membership:
    return Membership(redis_client, KeySpace("chain-router", "test"), lease=2)


def presence(members: Membership, host: str) -> Presence:
    return Presence(members, host, 1.0, lambda name: [])


def test_a_name_whose_owner_died_is_taken_when_its_lease_ends(members):
    presence(members, "old@h").join(["a"], slots=False, waiting=lambda error: None)
    waited = []
    new = presence(members, "new@h")
    assert new.join(["a"], slots=False, waiting=waited.append) == "a"
    assert len(waited) <= 1
    assert members.view().members["a"].holder.startswith("new@h")


def test_a_name_whose_owner_lives_is_refused(members):
    old = presence(members, "old@h")
    old.join(["a"], slots=False, waiting=lambda error: None)
    ended = threading.Event()

    def live():
        while not ended.wait(0.1):
            old.beat()

    thread = threading.Thread(target=live)
    thread.start()
    try:
        with pytest.raises(WorkerNameTaken, match="old@h"):
            presence(members, "new@h").join(["a"], slots=False, waiting=lambda error: None)
    finally:
        ended.set()
        thread.join()


def test_a_name_that_was_meant_while_the_server_was_away_is_taken_by_the_first_sign_of_life(members):
    worker = presence(members, "a@h")
    worker.claim("a")
    worker.beat()
    assert set(members.view().members) == {"a"}
    worker.drain()
    assert members.view().members["a"].state == "draining"
    worker.leave()
    assert members.view().members["a"].state == "gone"


def test_companions_are_told_with_the_next_sign_of_life(members):
    queues: list[str] = []
    worker = Presence(members, "a@h", 1.0, lambda name: queues)
    worker.join(["a"], slots=False, waiting=lambda error: None)
    queues.append(".wake")
    worker.beat()
    assert members.view().members["a"].companions == (".wake",)


def test_a_worker_taken_for_dead_says_so_when_it_is_back(members, redis_client, caplog):
    worker = presence(members, "a@h")
    worker.join(["a"], slots=False, waiting=lambda error: None)
    other = Member("b", "up").record()
    eventually(lambda: members.join(["b"], "t", other) and members.view().in_state("gone"))
    worker.beat()
    assert "chain_router_rejoined name=a" in caplog.text
