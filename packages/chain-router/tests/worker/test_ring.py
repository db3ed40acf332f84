"""Workers that join and leave by themselves: real workers, killed, stopped, frozen, restarted."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from celery import Celery, chain, chord

from celery_toolkit_core.bound_process import end_bound, start_bound
from celery_toolkit_testkit import eventually
from celery_toolkit_testkit.processes import frozen

KEYS = [f"c{index}" for index in range(20)]


@pytest.fixture
def ring_app(celery_app_module):
    module = celery_app_module("ring_app")
    module.router.attach(module.app)
    yield module
    # A result in a circle of references unsubscribes when it is collected: not after its server has ended.
    gc.collect()


@pytest.fixture
def start(celery_worker_process):
    def start(*names: str, **options):
        options = {"concurrency": 1, "wait": False, **options}
        workers = [celery_worker_process("ring_app", name=name, **options) for name in names]
        for worker in workers:
            worker.wait_ready()
        return workers

    return start


@pytest.fixture
def members(ring_app):
    membership = ring_app.router.sharing.membership
    return lambda state="up": {member.name for member in membership.view().in_state(state)}


def follow(ring_app, *names: str) -> None:
    """Wait until this process, a producer, knows exactly these workers."""
    eventually(lambda: set(ring_app.router.ring) == set(names), message=f"the ring to be {names}")


def send(ring_app, numbers, **options) -> None:
    for number in numbers:
        ring_app.work.delay(number, KEYS[number % len(KEYS)], **options)


def test_workers_join_consume_their_own_queue_and_leave(ring_app, start, members, event_log):
    one, _ = start("a", "b")
    assert members() == {"a", "b"}
    follow(ring_app, "a", "b")
    send(ring_app, range(40))
    done = event_log.wait_for(40, kind="done")
    assert all(event["worker"] == ring_app.router.get_worker_for_key(event["key"]) for event in done)
    assert {event["worker"] for event in done} == {"a", "b"}
    one.stop()
    assert members() == {"b"}
    assert members("gone") == {"a"}
    follow(ring_app, "b")
    send(ring_app, range(40, 60))
    assert {event["worker"] for event in event_log.wait_for(60, kind="done")[40:]} == {"b"}


def test_a_killed_workers_backlog_goes_to_the_others_and_only_its_keys_move(ring_app, start, members, event_log):
    one, _ = start("a", "b")
    follow(ring_app, "a", "b")
    before = {key: ring_app.router.get_worker_for_key(key) for key in KEYS}
    one.kill()
    # A producer that does not know yet goes on sending to it.
    send(ring_app, range(200))
    killed = time.monotonic()
    done = event_log.wait_for(200, kind="done")
    seconds = max(event["at"] for event in done) - killed
    assert sorted(event["number"] for event in done) == list(range(200))
    assert {event["worker"] for event in done} == {"b"}
    follow(ring_app, "b")
    assert set(before.values()) == {"a", "b"}
    assert members("gone") == {"a"}
    print(f"backlog of the killed worker finished {seconds:.1f} s after the kill; lease 3 s")
    [again] = start("a")
    follow(ring_app, "a", "b")
    assert {key: ring_app.router.get_worker_for_key(key) for key in KEYS} == before
    assert again.is_running


def test_joins_and_warm_stops_lose_nothing_and_double_nothing(ring_app, start, event_log):
    one, _ = start("a", "b")
    follow(ring_app, "a", "b")
    send(ring_app, range(100), seconds=0.01)
    start("c")
    send(ring_app, range(100, 200), seconds=0.01)
    one.stop()
    send(ring_app, range(200, 300), seconds=0.01)
    follow(ring_app, "b", "c")
    send(ring_app, range(300, 320))
    done = event_log.wait_for(320, kind="done")
    assert sorted(event["number"] for event in done) == list(range(320))
    last = [event for event in done if event["number"] >= 300]
    assert all(event["worker"] == ring_app.router.get_worker_for_key(event["key"]) for event in last)


def test_a_message_that_its_caller_sent_to_that_worker_waits_for_it(ring_app, start, event_log, redis_client):
    one, _ = start("a", "b")
    follow(ring_app, "a", "b")
    ring_app.work.apply_async((1, "k"), queue="a")
    assert event_log.wait_for(1, kind="done")[0]["worker"] == "a"
    # The body may end before its acknowledgement is sent; killed in between, it would rightly run again.
    eventually(lambda: redis_client.hlen("unacked") == 0)
    one.kill()
    ring_app.work.apply_async((2, "k"), queue="a")
    key = next(key for key in KEYS if ring_app.router.get_worker_for_key(key) == "a")
    ring_app.work.delay(3, key)
    assert event_log.wait_for(2, kind="done")[1]["number"] == 3
    follow(ring_app, "b")
    start("a")
    last = event_log.wait_for(3, kind="done")[2]
    assert (last["number"], last["worker"]) == (2, "a")


def test_a_retry_goes_to_the_owner_of_today(ring_app, start, event_log, tmp_path):
    path = tmp_path / "enough"
    one, _ = start("a", "b")
    follow(ring_app, "a", "b")
    key = next(key for key in KEYS if ring_app.router.get_worker_for_key(key) == "a")
    ring_app.try_again.delay(key, str(path))
    event_log.wait_for(1, kind="try", worker="a")
    one.stop()
    event_log.wait_for(1, kind="try", worker="b")
    path.touch()


def test_chain_steps_chord_bodies_links_and_replacements_go_to_the_owners_of_their_keys(ring_app, start, event_log):
    start("a", "b")
    follow(ring_app, "a", "b")
    chain(*[ring_app.work.si(number, KEYS[number]) for number in range(6)]).delay()
    chord([ring_app.work.si(number, KEYS[number]) for number in range(6, 10)], ring_app.work.si(10, KEYS[10])).delay()
    ring_app.work.apply_async((11, KEYS[11]), link=ring_app.work.si(12, KEYS[12]))
    # A task that puts another in its place, which has another key.
    ring_app.hand_on.delay(KEYS[0], 13, KEYS[13])
    ring_app.hand_on.delay(KEYS[13], 14, KEYS[0])
    done = event_log.wait_for(15, kind="done") + event_log.wait_for(2, kind="handed on")
    assert all(event["worker"] == ring_app.router.get_worker_for_key(event["key"]) for event in done)


def test_beat_sends_to_the_owner_of_today(ring_app, start, event_log, request, tmp_path):
    one, _ = start("a", "b")
    follow(ring_app, "a", "b")
    key = next(key for key in KEYS if ring_app.router.get_worker_for_key(key) == "a")
    schedule = {"often": {"task": ring_app.work.name, "schedule": 0.2, "args": [1, key]}}
    environment = {
        **os.environ,
        "PYTHONPATH": str(request.path.parent / "apps"),
        "SETTINGS": json.dumps({"beat_schedule": schedule}),
    }
    command = [sys.executable, "-m", "celery", "-A", "ring_app", "beat", "-s", str(tmp_path / "schedule"), "--pidfile="]
    beat = start_bound(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        event_log.wait_for(2, kind="done", worker="a")
        assert event_log.events(kind="done", worker="b") == []
        one.stop()
        event_log.wait_for(2, kind="done", worker="b")
    finally:
        end_bound(beat)


def test_after_a_reconnect_a_worker_consumes_its_own_queue_and_no_others(ring_app, start, event_log, cut_connections):
    """Celery 5.5 takes up every queue it has heard of meanwhile, and by routing a worker hears of the others'."""
    one, _ = start("a", "b")
    follow(ring_app, "a", "b")
    chain(*[ring_app.work.si(number, KEYS[number]) for number in range(10)]).delay()
    event_log.wait_for(10, kind="done")
    cut_connections()
    one.wait_for_log("Connected to", count=2)
    inspect = ring_app.app.control.inspect(destination=["a@test"], timeout=2)

    def consumed():
        answers = inspect.active_queues() or {}
        return {queue["name"] for queues in answers.values() for queue in queues}

    assert eventually(consumed) == {"a", "celery"}


def test_a_second_worker_of_a_living_name_is_refused(ring_app, start, celery_worker_process, members):
    [one] = start("a")
    second = celery_worker_process("ring_app", name="a", wait=False)
    assert second.wait() != 0
    assert "the worker name 'a' is taken by a@test" in second.log()
    assert "Traceback" not in second.log()
    assert one.is_running
    assert members() == {"a"}


def test_a_worker_without_a_name_takes_a_slot_and_a_restart_takes_the_same(ring_app, start, members):
    """``celery@a`` and ``celery@b`` are two workers."""
    one, two = start("celery", "celery")
    assert members() == {"w1", "w2"}
    follow(ring_app, "w1", "w2")
    before = {key: ring_app.router.get_worker_for_key(key) for key in KEYS}
    one.stop()
    start("celery")
    follow(ring_app, "w1", "w2")
    assert {key: ring_app.router.get_worker_for_key(key) for key in KEYS} == before
    two.stop(signal.SIGQUIT)
    assert len(members()) == 1


def test_a_slot_by_environment_and_a_weight(ring_app, start, members):
    settings = {"chain_router_leese": 9}
    environment = {"CHAIN_ROUTER_SLOT": "shop-0", "CHAIN_ROUTER_WEIGHT": "2", "SETTINGS": json.dumps(settings)}
    [worker] = start("host-4711", env=environment)
    assert members() == {"shop-0"}
    # Celery takes a misspelt setting in silence.
    worker.wait_for_log("unknown_setting setting=chain_router_leese did_you_mean=chain_router_lease")
    follow(ring_app, "shop-0")
    assert ring_app.router.ring.weights == {"shop-0": 2}


def test_signs_of_life_go_on_while_a_body_runs_in_every_pool(ring_app, start, members, event_log):
    pools = {"a": "prefork", "b": "solo", "c": "gevent"}
    options = {"env": {"LEASE": "4"}}
    workers = [start(name, pool=pool, **options)[0] for name, pool in pools.items()]
    for number, name in enumerate(pools):
        ring_app.work.apply_async((number, "k"), {"seconds": 7}, queue=name)

    def done():
        assert members() == set(pools)
        return len(event_log.events(kind="done")) == len(pools)

    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert not any("chain_router_rejoined" in worker.log() for worker in workers)


def test_a_worker_for_other_queues_stays_off_the_ring(ring_app, start, members):
    start("mailer", queues=["mail"])
    start("a", queues=["a", "mail"])
    assert members() == {"a"}


def test_a_frozen_worker_loses_its_keys_and_comes_back(ring_app, start, members, event_log):
    one, _ = start("a", "b")
    follow(ring_app, "a", "b")
    with frozen(one.pid):
        eventually(lambda: members() == {"b"})
        follow(ring_app, "b")
        send(ring_app, range(30))
        event_log.wait_for(30, kind="done")
    one.wait_for_log("chain_router_rejoined")
    assert members() == {"a", "b"}


def test_a_frozen_worker_whose_name_was_taken_ends(ring_app, start, members):
    [one] = start("a")
    with frozen(one.pid):
        [two] = start("a")
    one.wait_for_log("chain_router_name_lost")
    assert one.wait() != 0
    assert two.is_running
    assert members() == {"a"}


def test_companion_queues_of_a_dead_worker_are_adopted(ring_app, start, members, event_log):
    """Another package may consume ``<queue>.wake`` beside a worker's queue."""
    one, _ = start("a", queues=["a", "a.wake"]) + start("b", queues=["b", "b.wake"])
    follow(ring_app, "a", "b")
    one.kill()
    ring_app.app.send_task(ring_app.work.name, (1, "k"), queue="a.wake")
    assert event_log.wait_for(1, kind="done")[0]["worker"] == "b"


def test_a_producer_with_another_ring_is_noticed(ring_app, start, redis_url):
    [one] = start("a")
    mark = {"queue": "a", "key": "00", "ring": "of somebody else"}
    with Celery("plain", broker=redis_url, set_as_current=False) as plain:
        plain.send_task(ring_app.work.name, (1, "k"), queue="a", headers={"chain_router": mark})
    one.wait_for_log("chain_router_split_view messages=1")


def test_workers_tell_which_keys_are_hot(ring_app, start, event_log):
    start("a")
    follow(ring_app, "a")
    for number in range(30):
        ring_app.work.delay(number, "hot" if number % 3 else f"cold {number}")
    event_log.wait_for(30, kind="done")
    traffic = ring_app.router.sharing.membership.traffic
    eventually(lambda: traffic()["a"].received > 15)
    [(_, label, rate, excess), *others] = traffic()["a"].top
    assert (label, excess, len(others)) == ("hot", 0, 10)
    assert rate > 5 * others[0][2]


def test_a_worker_refuses_to_start_beside_the_older_distribution(celery_worker_process, tmp_path, request):
    """Both have the import name `celery_chain_router` and overwrite each other's files."""
    older = tmp_path / "celery_chain_router-0.2.0.dist-info"
    older.mkdir()
    (older / "METADATA").write_text("Metadata-Version: 2.1\nName: celery-chain-router\nVersion: 0.2.0\n")
    path = [request.path.parent / "apps", tmp_path]
    worker = celery_worker_process("ring_app", name="a", path=path, wait=False)
    assert worker.wait() != 0
    assert (
        "celery-chain-router 0.2.0 is installed beside celery-toolkit-chain-router, which replaces it" in worker.log()
    )
    assert "pip uninstall -y celery-chain-router" in worker.log()
    assert "Traceback" not in worker.log()


def test_a_wrong_setting_stops_a_worker_in_one_line(celery_worker_process):
    worker = celery_worker_process("ring_app", name="a", env={"LEASE": "-1"}, wait=False)
    assert worker.wait() != 0
    assert "chain_router_lease=-1.0 is not possible" in worker.log()
    assert "Traceback" not in worker.log()
