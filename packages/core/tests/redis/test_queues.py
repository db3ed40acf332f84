"""Delayed entries and dead letters on a real server with its real clock."""

from __future__ import annotations

from typing import Any

import redis

from celery_toolkit_core.deadletters import DeadLetter, DeadLetters
from celery_toolkit_core.delayed import Delayed
from celery_toolkit_testkit import eventually


def test_an_entry_comes_when_it_is_due(redis_client: redis.Redis, keys: Any) -> None:
    delayed = Delayed(redis_client, keys)
    delayed.put("late", b"2", delay=0.3)
    delayed.put("now", b"1")
    assert [entry.id for entry in delayed.take(10).entries] == ["now"]
    assert 0 < (delayed.look().next_due or 0) <= 0.3
    assert [entry.payload for entry in eventually(lambda: delayed.take(10).entries)] == [b"2"]


def test_the_entries_of_a_dead_taker_come_again_in_order(redis_client: redis.Redis, keys: Any) -> None:
    delayed = Delayed(redis_client, keys)
    for name in "abc":
        delayed.put(name)
    dead = delayed.take(2, lease=0.2)
    assert [entry.id for entry in delayed.take(1, lease=0.2).entries] == ["c"]
    eventually(lambda: delayed.look().ready == 3)
    taken = delayed.take(3)
    assert [entry.id for entry in taken.entries] == ["a", "b", "c"]
    assert delayed.confirm(dead.token, ["a", "b"]) == [False, False]
    assert delayed.confirm(taken.token, ["a", "b", "c"]) == [True, True, True]
    assert not redis_client.exists(*delayed.queue_keys)


def test_a_put_during_a_lease_is_not_lost_by_the_confirm(redis_client: redis.Redis, keys: Any) -> None:
    """What was woken and refused again parks itself before the waker has confirmed."""
    delayed = Delayed(redis_client, keys)
    delayed.put("task", b"first")
    batch = delayed.take()
    delayed.put("task", b"second", order=batch.entries[0].order)
    assert delayed.confirm(batch.token, ["task"]) == [False]
    assert [entry.payload for entry in delayed.take().entries] == [b"second"]


def test_a_put_asked_again_after_the_entry_has_gone_does_not_bring_it_back(
    redis_client: redis.Redis, keys: Any
) -> None:
    delayed = Delayed(redis_client, keys)
    delayed.put("task", token="t")
    batch = delayed.take()
    delayed.confirm(batch.token, ["task"])
    delayed.put("task", token="t")
    assert delayed.take().entries == ()


def test_queues_of_another_name_are_apart(redis_client: redis.Redis, keys: Any) -> None:
    Delayed(redis_client, keys, "one").put("entry")
    assert Delayed(redis_client, keys, "other").take().entries == ()


def test_an_operation_on_a_long_queue_runs_as_many_commands_as_on_a_short_one(
    redis_client: redis.Redis, keys: Any
) -> None:
    delayed = Delayed(redis_client, keys)

    def commands(token: str) -> int:
        redis_client.config_resetstat()
        delayed.put("x")
        delayed.confirm(token, [entry.id for entry in delayed.take(token=token).entries])
        return sum(row["calls"] for row in redis_client.info("commandstats").values())

    for token in ("warm", "warmer"):  # the server knows the scripts, and every connection is there
        commands(token)
    alone = commands("first")
    for number in range(2000):
        delayed.put(f"entry-{number}", delay=1000 * (number % 2))
    assert commands("last") == alone


def test_a_letter_is_replayed_by_one_only(redis_client: redis.Redis, keys: Any) -> None:
    letters = DeadLetters(redis_client, keys)
    letters.put(DeadLetter("a", "task", "boom", b"\x00\xff", {"exception": "ValueError", "retries": "3"}))
    replay = letters.take(["a"], lease=0.3)
    assert replay.letters[0].message == b"\x00\xff"
    assert replay.letters[0].details == {"exception": "ValueError", "retries": "3"}
    assert letters.take(["a"]).letters == ()
    assert letters.take_oldest(1).letters == ()
    second = eventually(lambda: (batch := letters.take(["a"])).letters and batch)
    assert letters.confirm(replay.token, ["a"]) == [False]
    assert letters.confirm(second.token, ["a"]) == [True]
    assert len(letters) == 0


def test_a_letter_that_dies_again_during_its_replay_stays(redis_client: redis.Redis, keys: Any) -> None:
    letters = DeadLetters(redis_client, keys)
    letters.put(DeadLetter("a", "task", "boom"))
    replay = letters.take(["a"])
    letters.put(DeadLetter("a", "task", "boom again"))
    assert letters.confirm(replay.token, ["a"]) == [False]
    assert [letter.reason for letter in letters] == ["boom again"]


def test_the_list_is_capped_and_pages(redis_client: redis.Redis, keys: Any) -> None:
    letters = DeadLetters(redis_client, keys, most=250)
    gone = sum(letters.put(DeadLetter(f"letter-{number}", "task", "boom")) for number in range(260))
    assert gone == 10
    assert [letter.id for letter in letters] == [f"letter-{number}" for number in range(10, 260)]
    assert [letter.id for letter in letters.page(letters.page(count=2)[-1].cursor, count=1)] == ["letter-12"]


def test_an_entry_that_is_no_letter_of_ours_harms_nobody(redis_client: redis.Redis, keys: Any) -> None:
    """Poisoned bytes in the store: shown as far as they can be read, and purged like any other."""
    letters = DeadLetters(redis_client, keys)
    redis_client.xadd(keys.key("dead-letters", "main"), {b"\xff": b"\xfe"})
    letters.put(DeadLetter("a", "task", "boom"))
    assert [letter.id for letter in letters] == ["", "a"]
    assert [letter.id for letter in letters.take_oldest(1).letters] in (["a"], [""])
    letters.purge_older()
    assert len(letters) == 0
