from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import redis

from celery_toolkit_core.leases import Leases
from celery_toolkit_testkit import EventLog, WorkerProcess, eventually

Start = Callable[..., WorkerProcess]


@pytest.fixture
def keeping(celery_app_module: Callable[[str], ModuleType]) -> Any:
    return celery_app_module("keeping")


@pytest.fixture
def leases(keeping: Any, redis_url: str) -> Leases:
    made = keeping.leases(redis_url)
    assert isinstance(made, Leases)
    return made


def held_until(leases: Leases, name: str, ended: Callable[[], object]) -> None:
    """Look again and again until it has ended; the same lease must be there at every look before."""
    fence = leases.inspect(name).fence
    while True:
        state = leases.inspect(name)
        if ended():
            return
        assert [holder.fence for holder in state.holders] == [fence], "the lease was lost while the task ran"
        time.sleep(0.05)


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo", "gevent"])
def test_a_lease_is_renewed_while_its_task_runs_longer_than_it_lasts(
    keeping: Any, leases: Leases, celery_worker_process: Start, event_log: EventLog, pool: str
) -> None:
    celery_worker_process("keeping", pool=pool)
    task = keeping.work.apply_async((keeping.TTL * 2.5,))
    event_log.wait_for(1, began=task.id)
    held_until(leases, task.id, lambda: event_log.events(ended=task.id))
    assert [event["outcome"] for event in event_log.events(ended=task.id)] == ["success"]
    assert not event_log.events(lost=task.id)
    eventually(lambda: not leases.inspect(task.id).holders)


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_broker_reconnect_makes_no_second_thread_and_loses_no_lease(
    keeping: Any,
    leases: Leases,
    redis_client: redis.Redis,
    cut_connections: Any,
    celery_worker_process: Start,
    event_log: EventLog,
    pool: str,
) -> None:
    worker = celery_worker_process("keeping", pool=pool)
    task = keeping.work.apply_async((keeping.TTL * 5,))
    event_log.wait_for(1, began=task.id)
    for cut in (1, 2):
        # Cut while it waits for messages: redis-py mends an idle connection in silence.
        eventually(lambda: any(each["cmd"] == "brpop" for each in redis_client.client_list()))
        # Every connection of everybody but this one: the broker's and the keeper's alike.
        assert cut_connections()
        worker.wait_for_log("Connection to broker lost", count=cut)
        event_log.wait_for(cut + 1, step="started")
    held_until(leases, task.id, lambda: event_log.events(ended=task.id))
    assert [event["outcome"] for event in event_log.events(ended=task.id)] == ["success"]
    assert not event_log.events(lost=task.id)
    assert [event["threads"] for event in event_log.events(step="started")] == [1, 1, 1]
    assert len(event_log.events(step="prepared")) == 1
    # It still works, and the new connection's tasks are followed too.
    after = keeping.work.apply_async((0,))
    event_log.wait_for(1, ended=after.id)
    assert worker.stop() == 0
    assert len(event_log.events(step="finished")) == 1


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_warm_shutdown_holds_the_lease_until_the_body_has_finished(
    keeping: Any, leases: Leases, celery_worker_process: Start, event_log: EventLog, pool: str
) -> None:
    worker = celery_worker_process("keeping", pool=pool, concurrency=1)
    task = keeping.work.apply_async((keeping.TTL * 2,))
    waiting = keeping.work.apply_async((0,))
    event_log.wait_for(1, began=task.id)
    # The second is received and holds its lease, but the only place in the pool is taken.
    eventually(lambda: leases.inspect(waiting.id).holders)
    worker.send(signal.SIGTERM)
    held_until(leases, task.id, lambda: event_log.events(ended=task.id))
    assert worker.wait() == 0
    assert [event["outcome"] for event in event_log.events(ended=task.id)] == ["success"]
    assert not event_log.events(lost=task.id)
    for each in (task, waiting):
        assert not leases.inspect(each.id).holders
    ((outcome),) = [event["outcome"] for event in event_log.events(ended=waiting.id)]
    # Celery 5.5 lets its thread pool run what it has; else it goes back to the broker.
    assert outcome in (("requeued",) if pool == "prefork" else ("requeued", "success"))
    (finished,) = event_log.events(step="finished")
    assert finished["at"] > event_log.events(ended=task.id)[0]["at"]


@pytest.mark.parametrize("acks_late", [False, True], ids=["early", "late"])
def test_a_cold_shutdown_ends_the_lease_of_the_killed_body(
    keeping: Any, leases: Leases, celery_worker_process: Start, event_log: EventLog, acks_late: bool
) -> None:
    worker = celery_worker_process("keeping", env={"ACKS_LATE": "1"} if acks_late else {})
    task = keeping.work.apply_async((600,))
    event_log.wait_for(1, began=task.id)
    worker.stop(signal.SIGQUIT)
    (event,) = event_log.events(ended=task.id)
    assert event["outcome"] == ("requeued" if acks_late else "terminated")
    assert not leases.inspect(task.id).holders


def test_a_worker_warns_of_a_misspelt_setting_with_the_nearest_name(keeping: Any, celery_worker_process: Start) -> None:
    worker = celery_worker_process("keeping", pool="solo")
    worker.wait_for_log("unknown_setting setting=keeping_leese did_you_mean=keeping_lease")


def test_a_worker_refuses_to_start_beside_the_older_distribution(
    keeping: Any, celery_worker_process: Start, tmp_path: Path
) -> None:
    """Both provide the same import name, and whichever was installed last has overwritten the other's files."""
    info = tmp_path / "site" / "celery_keeping_of_old-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: celery-keeping-of-old\nVersion: 1.2\n")
    apps = Path(__file__).parent / "apps"
    worker = celery_worker_process("keeping", wait=False, path=[info.parent, apps])
    assert worker.wait() != 0
    assert "celery-keeping-of-old 1.2 is installed beside celery-toolkit-keeping, which replaces it" in worker.log()
