"""A rolling restart of 4 workers, each coming back on a host of a new name: which keys change their worker."""

from __future__ import annotations

from functools import partial

import pytest

from celery_chain_router import ChainRouter
from celery_toolkit_testkit import eventually

KEYS = [f"c{index}" for index in range(1000)]
HOSTS = range(4)


def owners(router) -> dict[str, str]:
    return {key: router.get_worker_for_key(key) for key in KEYS}


@pytest.fixture
def module(celery_app_module):
    module = celery_app_module("ring_app")
    module.router.attach(module.app)
    return module


def test_with_slots_no_key_changes_its_worker(module, celery_worker_process):
    """Workers without a name, ``celery@<host>``, take the slot that the one before has left."""
    router = module.router
    membership = router.sharing.membership

    def start(host):
        # Of two `-n`, the later counts: `celery@old-0` is what Celery makes of a worker without a name.
        worker = celery_worker_process("ring_app", pool="solo", arguments=["-n", f"celery@{host}"], wait=False)
        worker.name = f"celery@{host}"
        return worker

    old = [start(f"old-{number}") for number in HOSTS]
    for worker in old:
        worker.wait_ready()
    eventually(lambda: len(router.ring) == len(HOSTS))
    before = owners(router)
    assert sorted(set(before.values())) == ["w1", "w2", "w3", "w4"]
    for number, worker in enumerate(old):
        worker.stop()
        start(f"new-{number}").wait_ready()

    def all_are_new():
        living = membership.view().in_state("up")
        names = {member.name for member in living if "@new-" in member.holder}
        return len(names) == len(HOSTS) and set(router.ring) == names

    eventually(all_are_new)
    after = owners(router)
    assert sum(before[key] != after[key] for key in KEYS) == 0


def test_with_names_of_hosts_keys_change_their_worker_again_and_again():
    """The baseline, a ring without slots: in the end every key has changed, on the way some more than once."""
    router = ChainRouter()
    for number in HOSTS:
        router.register_worker(f"old-{number}")
    before = owners(router)
    moves = 0
    for number in HOSTS:
        for change in (
            partial(router.unregister_worker, f"old-{number}"),
            partial(router.register_worker, f"new-{number}"),
        ):
            known = owners(router)
            change()
            moves += sum(known[key] != worker for key, worker in owners(router).items())
    after = owners(router)
    assert sum(before[key] != after[key] for key in KEYS) == len(KEYS)
    print(f"without slots: every key changed its worker, {moves / len(KEYS):.1f} times on average; with slots: none")
    assert moves > len(KEYS)
