"""The main road, with real workers: a task sent for a client is an ordinary Celery task that waits for a fair turn."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from threading import Thread

import pytest
from celery import chain, chord, group
from celery.exceptions import TaskRevokedError

import celery_ranch
from celery_ranch import lru_task
from celery_toolkit_testkit import eventually


def settled(fair, balanced, **expected):
    return eventually(lambda: balanced(waiting=0, in_flight=0, scheduled=0, **expected), timeout=60)


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo", "gevent"])
def test_the_result_of_lru_delay_is_the_tasks_in_every_pool(fair, worker, balanced, pool):
    worker(pool=pool)
    results = [fair.add.lru_delay(f"client{number % 3}", number, 1) for number in range(20)]
    assert [result.get(timeout=60) for result in results] == list(range(1, 21))
    settled(fair, balanced, submitted=20, done=20)


@pytest.mark.parametrize("acks_late", ["1", "0"], ids=["late", "early"])
@pytest.mark.parametrize("pool", ["prefork", "threads", "solo", "gevent"])
def test_every_end_of_a_task_settles_it_once_in_every_pool(fair, worker, balanced, event_log, pool, acks_late):
    expired = fair.add.lru_delay("a", 1, 1, expiry=0.001)
    started = worker(pool=pool, env={"ACKS_LATE": acks_late})
    with fair.app.connection() as own:  # what lies in the pool may be another test's, and cut
        # With gevent it hears of revokes a while after it is ready.
        eventually(lambda: fair.app.control.ping(timeout=1, connection=own))
    waiting = fair.add.lru_apply_async("a", (1, 1), countdown=2)
    waiting.revoke()
    assert fair.stumble.lru_delay("b", 2).get(timeout=60) == 2
    with pytest.raises(ValueError, match="no"):
        fair.fail.lru_delay("b", "no").get(timeout=60)
    fair.ignore.lru_delay("a")
    fair.refuse.lru_delay("a")
    times = 3 if acks_late == "1" else 1  # what was acknowledged before cannot be given back
    event_log.wait_for(times, what="refuse")
    for gone in (expired, waiting):
        with pytest.raises(TaskRevokedError):
            gone.get(timeout=60)
    settled(fair, balanced, submitted=8, done=6, expired=1, revoked=1)
    assert len(event_log.events(what="refuse")) == times
    assert started.is_running


def test_new_clients_come_first_behind_a_bulk_client(fair, worker, event_log):
    """10 clients with one task each behind 2,000 bulk tasks: all within the first 20 claimed after submission.

    celery-ranch 0.1.1 ran them at places 2001 to 2010.
    """
    for number in range(2000):
        fair.note.lru_delay("bulk", f"bulk{number}")
    seen = 0
    for concurrency in (1, 4):
        new = {f"new{concurrency}-{number}" for number in range(10)}
        for client in new:
            fair.note.lru_delay(client, client)
        started = worker(concurrency=concurrency)
        event_log.wait_for(seen + 40, what="note")
        assert started.stop() == 0
        order = [each["text"] for each in event_log.events(what="note")]
        assert new <= set(order[seen : seen + 20])
        seen = len(order)


def test_whatever_celery_offers_works(fair, worker, balanced, event_log):
    worker(concurrency=2)
    add = fair.add
    assert chain(add.s(1, 2).set(lru_key="a"), add.s(4).set(lru_key="b")).delay().get(timeout=60) == 7
    assert group(add.s(n, n).set(lru_key="a") for n in range(4)).delay().get(timeout=60) == [0, 2, 4, 6]
    header = [add.s(n, n).set(lru_key=f"c{n}") for n in range(4)]
    assert chord(header, fair.total.s().set(lru_key="a")).delay().get(timeout=60) == 12
    add.apply_async((1, 1), lru_key="a", link=fair.record.s())
    event_log.wait_for(1, what="record", value="2")
    failed = fair.fail.lru_apply_async("a", ("no",), link_error=fair.record_error.s())
    with pytest.raises(ValueError, match="no"):
        failed.get(timeout=60)
    event_log.wait_for(1, what="record_error", value="no")
    assert add.apply_async((1, 2), lru_key="a", task_id="mine").id == "mine"
    assert fair.app.AsyncResult("mine").get(timeout=60) == 3
    assert fair.headers.apply_async(lru_key="a", headers={"trace": "t1"}).get(timeout=60)["trace"] == "t1"
    assert fair.shared.apply_async(("s",), lru_key="a").get(timeout=60) == "s"
    assert fair.by_argument.delay(7).get(timeout=60) == 7
    assert add.delay(2, 2).get(timeout=60) == 4
    assert fair.plain.delay("p").get(timeout=60) == "p"
    settled(fair, balanced, submitted=17)


def test_a_retry_re_enters_its_own_clients_backlog(fair, worker, balanced, event_log):
    worker(concurrency=1)
    results = [fair.stumble.lru_delay(f"c{number}", 2) for number in range(10)]
    assert [result.get(timeout=60) for result in results] == [2] * 10
    late = fair.stumble.lru_delay("c0", 1, countdown=1)
    assert late.get(timeout=60) == 1
    seen = event_log.events(what="stumble")
    assert len(seen) == 32
    assert {each["key"] for each in seen} == {f"c{number}" for number in range(10)}
    settled(fair, balanced, submitted=32, done=32)


def test_a_countdown_waits_outside_the_workers_memory(fair, worker, balanced):
    result = fair.add.apply_async((1, 1), lru_key="a", countdown=1.5)
    assert balanced(scheduled=1, waiting=0)
    worker(concurrency=1)
    assert result.get(timeout=60) == 2
    settled(fair, balanced)


def test_revoked_expired_ignored_and_rejected_tasks_are_settled(fair, worker, balanced, event_log):
    expired = fair.add.lru_delay("a", 1, 1, expiry=0.001)
    first = worker(concurrency=1)
    with pytest.raises(TaskRevokedError):
        expired.get(timeout=60)
    running = fair.slow.lru_delay("a", "long", 60)
    event_log.wait_for(1, what="start")
    waiting = fair.add.lru_delay("a", 1, 1)
    waiting.revoke()
    running.revoke(terminate=True)
    with pytest.raises(TaskRevokedError):
        running.get(timeout=60)
    with pytest.raises(TaskRevokedError):
        waiting.get(timeout=60)
    fair.ignore.lru_delay("a")
    fair.refuse.lru_delay("a")
    event_log.wait_for(3, what="refuse")
    settled(fair, balanced, submitted=5, expired=1, revoked=2, done=2)
    assert first.is_running


def test_time_limits_end_a_task_and_its_turn(fair, worker, balanced):
    worker(concurrency=1)
    result = fair.slow.apply_async(("long", 60), lru_key="a", time_limit=1)
    with pytest.raises(Exception, match="TimeLimitExceeded"):
        result.get(timeout=60)
    settled(fair, balanced, done=1)


def test_children_inherit_the_client_of_their_parent(fair, worker, balanced, event_log):
    worker(concurrency=1)
    fair.parent.lru_delay("family", "child").get(timeout=60)
    event_log.wait_for(1, what="note", text="child")
    settled(fair, balanced, submitted=2)
    assert fair.note.get_client_metadata("family")["pending_tasks"] == 0


def test_a_message_sent_by_name_has_its_turn_too(fair, worker, balanced):
    worker(concurrency=1)
    result = fair.app.send_task("ranch_fair.add", (1, 2), headers={"ranch_key": "a"})
    assert result.get(timeout=60) == 3
    settled(fair, balanced, submitted=1, done=1)


def test_lost_tickets_are_issued_anew_by_an_idle_worker(fair, worker, balanced, redis_client):
    results = [fair.add.lru_delay("a", number, 0) for number in range(5)]
    redis_client.delete("celery")
    worker(concurrency=1)
    assert [result.get(timeout=60) for result in results] == [0, 1, 2, 3, 4]
    settled(fair, balanced, done=5)


def test_a_poisoned_entry_is_put_aside_and_the_worker_lives(fair, worker, balanced, redis_client):
    bad = fair.add.lru_delay("a", 1, 1)
    (key,) = redis_client.keys("*:messages")
    for entry in redis_client.hkeys(key):
        redis_client.hset(key, entry, b"rubbish")
    started = worker(concurrency=1)
    assert fair.add.lru_delay("a", 2, 2).get(timeout=60) == 4
    settled(fair, balanced, quarantined=1, done=1)
    assert started.is_running
    bad.forget()


def test_events_carry_the_tasks_own_name_and_none_tells_of_tickets(fair, worker):
    worker(concurrency=1, arguments=["-E"])
    fair.app.conf.task_send_sent_event = True
    seen = []
    with fair.app.connection_for_read() as connection:
        receiver = fair.app.events.Receiver(connection, handlers={"*": seen.append})

        def listen():
            with suppress(TimeoutError):
                receiver.capture(limit=None, timeout=60, wakeup=False)

        listening = Thread(target=listen)
        listening.start()

        def complete():
            # Sent anew until the listener is there from the first event on.
            result = fair.add.lru_delay("a", 1, 2)
            assert result.get(timeout=60) == 3
            mine = eventually(lambda: {each["type"]: each for each in seen if each.get("uuid") == result.id}, timeout=2)
            assert set(mine) == {"task-sent", "task-received", "task-started", "task-succeeded"}
            return mine

        try:
            mine = eventually(complete, timeout=60)
            assert mine["task-sent"]["name"] == mine["task-received"]["name"] == "ranch_fair.add"
        finally:
            receiver.should_stop = True
            listening.join(30)
    assert "celery_ranch.ticket" not in [each.get("name") for each in seen]


def test_a_claimed_task_that_the_worker_does_not_know_fails_as_in_plain_celery(fair, worker, balanced):
    @lru_task(fair.app, name="ranch_fair.elsewhere", shared=False)
    def elsewhere():
        pass

    unknown = elsewhere.lru_delay("a")
    started = worker(concurrency=1)
    with pytest.raises(Exception, match="elsewhere"):
        unknown.get(timeout=60)
    assert fair.add.lru_delay("a", 1, 2).get(timeout=60) == 3
    settled(fair, balanced, submitted=2, done=2)
    assert started.is_running


def test_a_worker_refuses_to_start_where_the_older_distribution_has_replaced_our_files(celery_worker_process, tmp_path):
    """Found by installing celery-ranch 0.1.1 after ours: the worker ran the older code and said nothing."""
    package = tmp_path / "celery_ranch"
    shutil.copytree(celery_ranch.__path__[0], package)
    (package / "__init__.py").write_text("from .task import lru_task\n")
    (package / "task.py").write_text("def lru_task(app):\n    return app.task\n")
    (tmp_path / "older.py").write_text(
        "from celery import Celery\nfrom celery_ranch import lru_task\n"
        "app = Celery('older')\n@lru_task(app)\ndef task(): ...\n"
    )
    metadata = tmp_path / "celery_ranch-0.1.1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: celery-ranch\nVersion: 0.1.1\n")
    started = celery_worker_process("older", path=[tmp_path], wait=False)
    started.wait_for_log("celery-ranch 0.1.1 is installed beside celery-toolkit-ranch")
    eventually(lambda: not started.is_running)
    assert " ready." not in started.log()


def test_a_worker_refuses_to_start_beside_the_older_distribution(fair, worker, tmp_path):
    folder = tmp_path / "celery_ranch-0.1.1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: celery-ranch\nVersion: 0.1.1\n")
    refused = worker(path=[tmp_path, Path(__file__).parent / "apps"], wait=False)
    assert refused.wait() != 0
    assert "celery-ranch 0.1.1 is installed beside celery-toolkit-ranch" in refused.log()
