"""Delayed entries against a plain model, with the clock under control."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from celery_toolkit_core.delayed import Delayed, DelayedState, Entry
from celery_toolkit_core.keys import KeySpace

MEMORY_MS = 10_000

entries = st.integers(1, 8).map("entry-{}".format)
takers = st.integers(1, 4).map("taker-{}".format)
waits = st.sampled_from([0.0, 0.0, 0.001, 1.0, 30.0])


@dataclass
class Item:
    payload: bytes
    order: float
    due_ms: int
    token: str = ""
    lease_ms: int = 0


@dataclass
class Taken:
    ids: dict[str, str]  # id -> '' | confirmed | back
    until_ms: int


def delayed_machine(clock: Any, client: redis.Redis) -> type[RuleBasedStateMachine]:
    class DelayedMachine(RuleBasedStateMachine):
        @initialize()
        def start(self) -> None:
            clock.reset()
            self.delayed = Delayed(client, KeySpace("test"))
            self.items: dict[str, Item] = {}
            self.batches: dict[str, Taken] = {}
            self.puts = 0

        def held(self, entry: str, token: str) -> bool:
            # A lease that has ended holds until a take has seen its end; nobody else can have the entry before.
            item = self.items.get(entry)
            return item is not None and item.token == token

        def batch(self, token: str) -> Taken | None:
            batch = self.batches.get(token)
            return batch if batch is not None and batch.until_ms >= clock.ms else None

        @rule(
            chosen=st.lists(entries, min_size=1, max_size=3),
            wait=waits,
            order=st.sampled_from([None, 1.5]),
            times=st.integers(1, 2),
        )
        def put(self, chosen: list[str], wait: float, order: float | None, times: int) -> None:
            for entry in chosen:
                self.puts += 1
                payload = b"\xff\x00payload %d" % self.puts
                for _ in range(times):
                    place = self.delayed.put(entry, payload, delay=wait, order=order, token=f"put-{self.puts}")
                    assert place == (clock.us if order is None else order)
                self.items[entry] = Item(payload, place, clock.ms + round(wait * 1000))
                clock.advance(1)

        @rule(token=takers, count=st.integers(1, 5), lease=st.sampled_from([0.5, 20.0]), times=st.integers(1, 2))
        def take(self, token: str, count: int, lease: float, times: int) -> None:
            for _ in range(times):
                got = self.delayed.take(count, lease=lease, token=token).entries
                batch = self.batch(token)
                if batch is not None:
                    ids = [e for e in batch.ids if self.held(e, token) and self.items[e].lease_ms > clock.ms]
                    ids.sort(key=lambda e: (self.items[e].order, e))
                else:
                    for item in self.items.values():
                        if item.token and item.lease_ms <= clock.ms:
                            item.token, item.lease_ms = "", 0
                    ready = [e for e, item in self.items.items() if not item.token and item.due_ms <= clock.ms]
                    ids = sorted(ready, key=lambda e: (self.items[e].order, e))[:count]
                    for e in ids:
                        self.items[e].token, self.items[e].lease_ms = token, clock.ms + round(lease * 1000)
                        self.items[e].due_ms = 0
                    if ids:
                        until_ms = clock.ms + round(lease * 1000) + MEMORY_MS
                        self.batches[token] = Taken(dict.fromkeys(ids, ""), until_ms)
                assert list(got) == [Entry(e, self.items[e].payload, self.items[e].order) for e in ids]

        @rule(token=takers, chosen=st.lists(entries, max_size=4, unique=True), back=st.booleans(), wait=waits)
        def settle(self, token: str, chosen: list[str], back: bool, wait: float) -> None:
            word = "back" if back else "confirmed"
            for _ in range(2):
                batch = self.batch(token)
                expected = []
                for entry in chosen:
                    if self.held(entry, token):
                        expected.append(True)
                        if back:
                            item = self.items[entry]
                            item.token, item.lease_ms, item.due_ms = "", 0, clock.ms + round(wait * 1000)
                        else:
                            del self.items[entry]
                        if batch is not None:
                            batch.ids[entry] = word
                    else:
                        expected.append(batch is not None and batch.ids.get(entry) == word)
                if back:
                    assert self.delayed.give_back(token, chosen, delay=wait) == expected
                else:
                    assert self.delayed.confirm(token, chosen) == expected

        @rule(token=takers)
        def settle_all(self, token: str) -> None:
            batch = self.batch(token)
            if batch is not None:
                self.settle(token, list(batch.ids), len(batch.ids) % 2 == 0, 0.0)

        @rule(chosen=st.lists(entries, max_size=2, unique=True))
        def discard(self, chosen: list[str]) -> None:
            assert self.delayed.discard(chosen) == sum(self.items.pop(entry, None) is not None for entry in chosen)

        @rule(us=st.sampled_from([1, 999, 1000, 500_000, 1_000_000, 20_000_000, 40_000_000]))
        def advance(self, us: int) -> None:
            clock.advance(us)

        @invariant()
        def nothing_lost_nothing_twice(self) -> None:
            items = getattr(self, "items", None)
            if items is None:
                return
            keys = self.delayed.queue_keys
            assert {key.decode() for key in client.hkeys(keys[0])} == set(items)
            assert {key.decode() for key in client.hkeys(keys[1])} == set(items)
            somewhere = [entry.decode() for key in keys[2:] for entry in client.zrange(key, 0, -1)]
            assert sorted(somewhere) == sorted(items)

        @invariant()
        def same_look(self) -> None:
            items = getattr(self, "items", None)
            if items is None:
                return
            until = {e: item.lease_ms if item.token else item.due_ms for e, item in items.items()}
            later = [e for e, item in items.items() if not item.token and until[e] > clock.ms]
            taken = [e for e, item in items.items() if item.token and until[e] > clock.ms]
            ready = len(items) - len(later) - len(taken)
            next_ms = 0 if ready else min((until[e] for e in items), default=clock.ms - 1) - clock.ms
            next_due = None if next_ms < 0 else next_ms / 1000
            assert self.delayed.look() == DelayedState(len(later), ready, len(taken), next_due)

    return DelayedMachine


def test_delayed_entries_behave_like_the_model(virtual_clock: Any, redis_client: redis.Redis) -> None:
    run_state_machine_as_test(
        delayed_machine(virtual_clock, redis_client),
        settings=settings(
            max_examples=30, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
