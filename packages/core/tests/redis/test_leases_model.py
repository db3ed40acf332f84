"""Leases against a plain model, with the clock under control."""

from __future__ import annotations

from typing import Any

import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from celery_toolkit_core.keys import KeySpace
from celery_toolkit_core.leases import Held, Lease, Leases

RELEASE_MEMORY_MS = 10_000

names = st.sampled_from(["a", "b"])
tokens = st.sampled_from(["t1", "t2", "t3", "t4"])
ttls = st.sampled_from([1, 500, 10_000, 60_000])


class Model:
    """One name: who holds until when, with which fence, and who gave back lately."""

    def __init__(self) -> None:
        self.ends: dict[str, int] = {}
        self.fences: dict[str, int] = {}
        self.released: dict[str, int] = {}

    def live(self, now: int) -> dict[str, int]:
        return {token: end for token, end in self.ends.items() if end > now}

    def holds(self, token: str, now: int) -> bool:
        return self.ends.get(token, 0) > now


def leases_machine(clock: Any, client: redis.Redis) -> type[RuleBasedStateMachine]:
    class LeasesMachine(RuleBasedStateMachine):
        @initialize(permits=st.integers(1, 3))
        def start(self, permits: int) -> None:
            clock.reset()
            self.permits = permits
            self.leases = Leases(client, KeySpace("test"), permits=permits)
            self.model = {"a": Model(), "b": Model()}
            self.highest = {"a": 0, "b": 0}

        @rule(name=names, token=tokens, ttl=ttls, times=st.integers(1, 2))
        def acquire(self, name: str, token: str, ttl: int, times: int) -> None:
            """Twice: the first answer was lost."""
            model = self.model[name]
            for _ in range(times):
                answer = self.leases.acquire(name, token, ttl=ttl / 1000)
                if model.holds(token, clock.ms):
                    assert isinstance(answer, Lease)
                    assert answer.fence == model.fences[token]
                elif len(model.live(clock.ms)) < self.permits:
                    assert isinstance(answer, Lease)
                    assert answer.fence > self.highest[name]
                    self.highest[name] = model.fences[token] = answer.fence
                else:
                    first = min(model.live(clock.ms).values())
                    assert isinstance(answer, Held)
                    assert model.ends[answer.holder] == first
                    assert round(answer.remaining * 1000) == first - clock.ms
                    continue
                model.ends[token] = clock.ms + ttl
                model.released.pop(token, None)

        @rule(pairs=st.lists(st.tuples(names, tokens), max_size=4), ttl=ttls)
        def renew(self, pairs: list[tuple[str, str]], ttl: int) -> None:
            expected = [self.model[name].holds(token, clock.ms) for name, token in pairs]
            assert self.leases.renew_many(pairs, ttl=ttl / 1000) == expected
            for (name, token), held in zip(pairs, expected, strict=True):
                if held:
                    self.model[name].ends[token] = clock.ms + ttl

        @rule(name=names, token=tokens, times=st.integers(1, 2))
        def release(self, name: str, token: str, times: int) -> None:
            model = self.model[name]
            for _ in range(times):
                held = model.holds(token, clock.ms)
                remembered = model.released.get(token, 0) > clock.ms
                assert self.leases.release(name, token) is (held or remembered)
                if held:
                    del model.ends[token]
                    model.released[token] = clock.ms + RELEASE_MEMORY_MS

        @rule(us=st.sampled_from([1, 999, 1000, 400_000, 9_999_000, 10_000_000, 70_000_000, 700_000_000]))
        def advance(self, us: int) -> None:
            clock.advance(us)

        @rule(name=names, off_us=st.sampled_from([-1000, 0, 1000]))
        def advance_to_an_end(self, name: str, off_us: int) -> None:
            live = self.model[name].live(clock.ms)
            if live:
                token = min(live, key=lambda holder: live[holder])
                clock.advance(max(0, live[token] * 1000 + off_us - clock.us))
                self.renew([(name, token)], 500)
                self.release(name, token, 2)

        @invariant()
        def same_holders(self) -> None:
            for name, model in getattr(self, "model", {}).items():
                state = self.leases.inspect(name)
                assert len(state.holders) <= self.permits
                assert {h.token: (round(h.remaining * 1000), h.fence) for h in state.holders} == {
                    token: (end - clock.ms, model.fences[token]) for token, end in model.live(clock.ms).items()
                }

        @invariant()
        def every_key_ends(self) -> None:
            found = set(client.scan_iter("{*"))
            assert found <= set(client.zrange("virtual:ends", 0, -1))

    return LeasesMachine


def test_leases_behave_like_the_model(virtual_clock: Any, redis_client: redis.Redis) -> None:
    run_state_machine_as_test(
        leases_machine(virtual_clock, redis_client),
        settings=settings(
            max_examples=30, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
