"""Partition mode with real workers: pools, retries, canvas, refusals; what happens over changes is in the oracle.

What is marked long has its short form in ``tests/redis``.
"""

from __future__ import annotations

import signal
from collections import Counter

import pytest
from celery import chain, chord

from celery_toolkit_testkit import eventually

KEYS = [f"c{index}" for index in range(20)]


@pytest.fixture
def partition_app(celery_app_module):
    return celery_app_module("partition_app")


@pytest.fixture
def start(celery_worker_process):
    def start(*names: str, **options):
        options = {"concurrency": 2, "wait": False, **options}
        workers = [celery_worker_process("partition_app", name=name, **options) for name in names]
        for worker in workers:
            worker.wait_ready()
        return workers

    return start


def send(partition_app, numbers, **options) -> None:
    for number in numbers:
        partition_app.work.delay(number, KEYS[number % len(KEYS)], **options)


def in_order(events) -> bool:
    """Whether the numbers of each key rise."""
    last = Counter()
    for event in sorted(events, key=lambda event: event["at"]):
        if event["number"] < last[event["key"]]:
            return False
        last[event["key"]] = event["number"]
    return True


@pytest.mark.parametrize("pool", ["threads", "solo", "gevent"])
def test_other_pools(partition_app, start, event_log, pool):
    """A lease of 3 s and a body that takes longer: renewal goes on, in every pool, and a warm stop gives all back."""
    one, _ = start("a", "b", pool=pool)
    eventually(lambda: len({event["pid"] for event in event_log.events(kind="assign")}) == 2)
    send(partition_app, range(60), seconds=0.005)
    send(partition_app, [60], seconds=4)
    event_log.wait_for(61, kind="done")
    send(partition_app, range(61, 121), seconds=0.005)
    one.stop()
    done = event_log.wait_for(121, kind="done")
    assert sorted(event["number"] for event in done) == list(range(121))
    assert in_order(event_log.events(kind="start"))
    assert not any("chain_router_lost" in worker.log() for worker in (one, _))


@pytest.mark.long
def test_a_hot_key_does_not_keep_others_waiting(partition_app, start, event_log):
    """A long backlog of one key; what comes after it for other partitions runs beside it."""
    start("a")
    for number in range(100):
        partition_app.work.delay(number, "hot", seconds=0.2)
    hot = partition_app.router.get_worker_for_key("hot")
    others = [key for key in KEYS if partition_app.router.get_worker_for_key(key) != hot]
    for number, key in enumerate(others, 1000):
        partition_app.work.delay(number, key)
    done = [event["number"] for event in event_log.wait_for(len(others) + 1, kind="done")]
    eventually(
        lambda: {*range(1000, 1000 + len(others))} <= {event["number"] for event in event_log.events(kind="done")}
    )
    assert len([number for number in done if number < 1000]) < 50


def test_retries_chains_chords_and_links_follow_their_key(partition_app, start, event_log, tmp_path):
    one, _ = start("a", "b")
    path = tmp_path / "enough"
    partition_app.try_again.delay("k", str(path))
    event_log.wait_for(2, kind="try")
    owner = event_log.events(kind="try")[0]["worker"]
    work = partition_app.work
    chain(*[work.si(number, KEYS[number]) for number in range(10)]).delay()
    chord([work.si(number, KEYS[number]) for number in range(10, 15)], work.si(15, KEYS[15])).apply_async()
    work.apply_async((16, KEYS[16]), link=work.si(17, KEYS[17]))
    done = event_log.wait_for(18, kind="done")
    # A retry goes where the key is: when its worker ends, to the other one.
    {"a": one, "b": _}[owner].stop()
    heir = ({"a", "b"} - {owner}).pop()
    event_log.wait_for(1, kind="try", worker=heir)
    path.touch()
    fences = {}
    for event in done:
        assert fences.setdefault(event["key"], event["fence"]) == event["fence"]


def test_a_call_to_a_chosen_partition_and_one_from_a_stranger(partition_app, start, event_log):
    """Neither has a key that anybody knows; both run, once."""
    start("a")
    partition_app.work.apply_async((1, "k"), queue="chain.3")
    from celery import Celery

    with Celery("plain", broker=partition_app.app.conf.broker_url, set_as_current=False) as plain:
        plain.send_task(partition_app.work.name, (2, "k"), queue="chain.4")
    assert {event["number"] for event in event_log.wait_for(2, kind="done")} == {1, 2}


@pytest.mark.long
def test_a_worker_for_other_queues_takes_no_partition(partition_app, start, event_log):
    start("mailer", queues=["mail"])
    start("both", queues=["mail", "chain"])
    eventually(lambda: len(event_log.events(kind="assign")) == 16)
    send(partition_app, range(20))
    assert {event["worker"] for event in event_log.wait_for(20, kind="done")} == {"both"}


def test_hooks_surround_what_a_worker_runs(partition_app, start, event_log):
    [one] = start("a")
    send(partition_app, range(20))
    event_log.wait_for(20, kind="done")
    one.stop()
    events = event_log.events()
    assert sorted(event["partition"] for event in events if event["kind"] == "assign") == list(range(16))
    assert sorted(event["partition"] for event in events if event["kind"] == "revoke") == list(range(16))
    number = partition_app.router.partitions.number
    of = lambda event: event.get("partition", number(partition_app.router.get_worker_for_key(event.get("key"))))  # noqa: E731
    for partition in range(16):
        kinds = [event["kind"] for event in events if of(event) == partition]
        assert kinds[0] == "assign"
        assert kinds[-1] == "revoke"


@pytest.mark.long
def test_another_number_of_partitions_stops_a_worker_in_one_line(start, celery_worker_process):
    start("a")
    worker = celery_worker_process("partition_app", name="b", env={"PARTITIONS": "32"}, wait=False)
    assert worker.wait() != 0
    assert "partitions=32, but the workers that run have 16" in worker.log()
    assert "Traceback" not in worker.log()


def test_without_a_redis_for_the_leases_a_worker_does_not_start(celery_worker_process):
    env = {"CELERY_BROKER_URL": "memory://", "CELERY_RESULT_BACKEND": "cache+memory://"}
    worker = celery_worker_process("partition_app", env=env, wait=False)
    assert worker.wait() != 0
    assert "mode='partition' needs a Redis for the leases" in worker.log()


def test_a_broker_that_cannot_hand_over_is_refused(celery_worker_process, redis_url):
    env = {"CELERY_BROKER_URL": "memory://", "CELERY_RESULT_BACKEND": redis_url}
    worker = celery_worker_process("partition_app", env=env, wait=False)
    assert worker.wait() != 0
    assert "mode='partition' needs a Redis or RabbitMQ broker, not 'memory'" in worker.log()


@pytest.mark.long
def test_a_cold_shutdown_leaves_nothing_behind(partition_app, start, event_log):
    one, two = start("a", "b")
    eventually(lambda: len({event["pid"] for event in event_log.events(kind="assign")}) == 2)
    send(partition_app, range(20), seconds=0.3)
    event_log.wait_for(4, kind="start")
    one.stop(signal.SIGQUIT)
    done = event_log.wait_for(20, kind="done")
    assert {event["number"] for event in done} == set(range(20))
    assert two.is_running
