"""Dead letters against a plain model, with the clock under control."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from celery_toolkit_core.deadletters import DeadLetter, DeadLetters
from celery_toolkit_core.keys import KeySpace

MEMORY_MS = 10_000
MOST = 5
KEEP_MS = 100_000

names = st.integers(1, 8).map("letter-{}".format)
takers = st.integers(1, 4).map("taker-{}".format)


@dataclass
class Letter:
    name: str
    message: bytes
    at_ms: int
    token: str = ""
    lease_ms: int = 0


def letters_machine(clock: Any, client: redis.Redis) -> type[RuleBasedStateMachine]:
    class LettersMachine(RuleBasedStateMachine):
        @initialize()
        def start(self) -> None:
            clock.reset()
            self.letters = DeadLetters(client, KeySpace("test"), most=MOST, keep=KEEP_MS / 1000)
            self.model: list[Letter] = []
            self.batches: dict[str, tuple[dict[str, str], int]] = {}
            self.puts = 0

        def find(self, name: str) -> Letter | None:
            return next((letter for letter in self.model if letter.name == name), None)

        def batch(self, token: str) -> dict[str, str] | None:
            words, until_ms = self.batches.get(token, ({}, 0))
            return words if until_ms >= clock.ms else None

        def held(self, name: str, token: str) -> bool:
            letter = self.find(name)
            return letter is not None and letter.token == token and letter.lease_ms > clock.ms

        @rule(chosen=st.lists(names, min_size=1, max_size=6), times=st.integers(1, 2))
        def put(self, chosen: list[str], times: int) -> None:
            for name in chosen:
                self.puts += 1
                message = b"\x00\xff%d" % self.puts
                self.model = [letter for letter in self.model if letter.name != name]
                self.model.append(Letter(name, message, clock.ms))
                kept = [letter for letter in self.model if letter.at_ms >= clock.ms - KEEP_MS][-MOST:]
                gone = len(self.model) - len(kept)
                self.model = kept
                letter = DeadLetter(name, "task", "reason", message, {"traceback": "line\n\udc80"})
                for _ in range(times):
                    assert self.letters.put(letter, token=f"put-{self.puts}") == gone

        @rule(
            token=takers,
            chosen=st.lists(names, max_size=3, unique=True),
            count=st.integers(0, 3),
            lease=st.sampled_from([0.5, 20.0]),
        )
        def take(self, token: str, chosen: list[str], count: int, lease: float) -> None:
            for _ in range(2):
                if count:
                    got = self.letters.take_oldest(count, lease=lease, token=token).letters
                else:
                    got = self.letters.take(chosen, lease=lease, token=token).letters
                batch = self.batch(token)
                if batch is not None:
                    expected = [
                        letter for letter in self.model if letter.name in batch and self.held(letter.name, token)
                    ]
                else:
                    free = [letter for letter in self.model if letter.lease_ms <= clock.ms or not letter.token]
                    if count:
                        expected = free[:count]
                    else:
                        expected = [letter for name in chosen if (letter := self.find(name)) in free and letter]
                    for letter in expected:
                        letter.token, letter.lease_ms = token, clock.ms + round(lease * 1000)
                    if expected:
                        until_ms = clock.ms + round(lease * 1000) + MEMORY_MS
                        self.batches[token] = ({letter.name: "" for letter in expected}, until_ms)
                assert sorted((t.id, t.message) for t in got) == sorted((e.name, e.message) for e in expected)
                if count:
                    assert [t.id for t in got] == [e.name for e in expected]

        @rule(token=takers, chosen=st.lists(names, max_size=4, unique=True), back=st.booleans())
        def settle(self, token: str, chosen: list[str], back: bool) -> None:
            word = "back" if back else "confirmed"
            for _ in range(2):
                batch = self.batch(token)
                expected = []
                for name in chosen:
                    held = self.held(name, token)
                    expected.append(held or (batch or {}).get(name) == word)
                    if held and batch is not None:
                        batch[name] = word
                        letter = self.find(name)
                        assert letter is not None
                        if back:
                            letter.token, letter.lease_ms = "", 0
                        else:
                            self.model.remove(letter)
                operation = self.letters.give_back if back else self.letters.confirm
                assert operation(token, chosen) == expected

        @rule(token=takers, back=st.booleans())
        def settle_all(self, token: str, back: bool) -> None:
            self.settle(token, list(self.batch(token) or {}), back)

        @rule(chosen=st.lists(names, max_size=2, unique=True))
        def purge(self, chosen: list[str]) -> None:
            there = [letter for letter in self.model if letter.name in chosen]
            assert self.letters.purge(chosen) == len(there)
            self.model = [letter for letter in self.model if letter.name not in chosen]

        @rule(age_ms=st.sampled_from([0, 1000, 50_000]))
        def purge_older(self, age_ms: int) -> None:
            kept = [letter for letter in self.model if age_ms and letter.at_ms >= clock.ms - age_ms]
            assert self.letters.purge_older(age_ms / 1000) == len(self.model) - len(kept)
            self.model = kept

        @rule(token=takers)
        def a_taker_dies(self, token: str) -> None:
            self.take(token, [], 2, 0.5)
            self.advance(500)

        @rule(ms=st.sampled_from([1, 500, 1000, 20_000, 60_000, 100_000]))
        def advance(self, ms: int) -> None:
            clock.advance(ms * 1000)
            # The whole list expires when its youngest letter is too old.
            if self.model and max(self.youngest(), 0) < clock.ms:
                self.model = []

        def youngest(self) -> int:
            ends = client.zscore("virtual:ends", KeySpace("test").key("dead-letters", "main"))
            return int(ends or 0)

        @invariant()
        def same_letters(self) -> None:
            if not hasattr(self, "model"):
                return
            assert len(self.letters) == len(self.model)
            for seen, letter in zip(self.letters, self.model, strict=True):
                assert (seen.id, seen.message, seen.details) == (
                    letter.name,
                    letter.message,
                    {"traceback": "line\n\\udc80"},
                )
                assert seen.taken_by == (letter.token if self.held(letter.name, letter.token) else "")

        @invariant()
        def index_fits(self) -> None:
            if not hasattr(self, "model"):
                return
            space = KeySpace("test")
            assert client.hlen(space.key("dead-index", "main")) == len(self.model)
            assert client.hlen(space.key("dead-taken", "main")) <= len(self.model)

    return LettersMachine


def test_dead_letters_behave_like_the_model(virtual_clock: Any, redis_client: redis.Redis) -> None:
    run_state_machine_as_test(
        letters_machine(virtual_clock, redis_client),
        settings=settings(
            max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
