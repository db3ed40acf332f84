"""Limits against a plain model, with the clock under control; and a judge that knows only what was granted."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from celery_toolkit_core.keys import KeySpace
from celery_toolkit_core.limits import Concurrency, Decision, Demand, Limiter, RateLimit

MEMORY_MS = 10_000  # of receipts and of released slots

FAST = RateLimit("3/10s", name="fast")
SLOW = RateLimit("5/m", name="slow")
SLOTS = Concurrency(2, name="slots", ttl=20.0)
LIMITS = {limit.name: limit for limit in (FAST, SLOW, SLOTS)}
UNKNOWN = -1

STEPS = [0, 0, 1, 300_000, 2_500_000]  # us between two takes
tokens = st.integers(1, 12).map("token-{}".format)
parts = st.sampled_from([(), ("x",)])


@st.composite
def demand_lists(draw: st.DrawFn, *, rates_only: bool = False) -> list[Demand]:
    names = draw(st.lists(st.sampled_from(["fast", "slow"] + ["slots"] * (not rates_only)), min_size=1, unique=True))
    demands = []
    for name in names:
        limit, part = LIMITS[name], draw(parts)
        cost = 1 if isinstance(limit, Concurrency) else draw(st.sampled_from([1, 1, 1, 1, 2, 2, 0, 4]))
        demands.append(Demand(limit, part, cost))
    return demands


@dataclass
class Place:
    """One limit and part."""

    starts: list[list[int]] = field(default_factory=list)  # [stamp, cost]
    starts_end_ms: int = 0
    slots: dict[str, int] = field(default_factory=dict)
    released: dict[str, int] = field(default_factory=dict)
    penalty_ms: int = 0


class Model:
    def __init__(self, clock: Any) -> None:
        self.clock = clock
        self.places: dict[tuple[str, tuple[str, ...]], Place] = {}
        self.values: dict[tuple[str, tuple[str, ...]], tuple[Any, int]] = {}
        self.receipts: dict[tuple[str, tuple[Any, ...]], tuple[int, int]] = {}
        self.granted: dict[tuple[str, tuple[str, ...]], dict[int, int]] = {}

    def place(self, demand: Demand) -> Place:
        place = self.places.setdefault((demand.limit.name, demand.part), Place())
        if place.starts and place.starts_end_ms < self.clock.ms:
            place.starts = []
        return place

    def holds(self, demand: Demand, token: str) -> bool:
        return self.place(demand).slots.get(token, 0) > self.clock.ms

    def in_force(self, demand: Demand) -> tuple[Any, int]:
        for part in (demand.part, ()):
            value, until_ms = self.values.get((demand.limit.name, part), (None, 0))
            if value is not None and (until_ms == 0 or until_ms > self.clock.ms):
                return value, until_ms
        return demand.limit, 0

    def look(self, demand: Demand, token: str) -> tuple[int, int, int | None]:
        """Times in force, used, wait in us (None: would be granted)."""
        place, now = self.place(demand), self.clock.us
        value, until_ms = self.in_force(demand)
        times = 0 if value.paused else value.times
        wait: int | None = None
        if isinstance(demand.limit, RateLimit):
            span = round(value.per * 1e6)
            place.starts = [start for start in place.starts if start[0] >= now - span]
            used = sum(cost for _, cost in place.starts)
            excess = used + demand.cost - times
            if times == 0:
                wait = UNKNOWN
            elif excess > 0:
                wait = UNKNOWN
                for stamp, cost in place.starts:
                    excess -= cost
                    if excess <= 0:
                        wait = stamp + span + 1 - now
                        break
        else:
            place.slots = {holder: end for holder, end in place.slots.items() if end > self.clock.ms}
            used = len(place.slots)
            if token in place.slots:
                return times, used, None
            if times == 0:
                wait = UNKNOWN
            elif used >= times:
                wait = min(place.slots.values()) * 1000 - now
        if wait is not None and until_ms:
            left = until_ms * 1000 - now
            wait = left if wait == UNKNOWN else min(wait, left)
        penalty = place.penalty_ms * 1000 - now
        if penalty > 0 and wait != UNKNOWN:
            wait = max(wait or 0, penalty)
        return times, used, wait

    def take(self, demands: list[Demand], token: str) -> Decision:
        name = (token, tuple((d.limit.name, d.part) for d in demands))
        stamp, until_ms = self.receipts.get(name, (0, 0))
        slots = [d for d in demands if isinstance(d.limit, Concurrency)]
        if until_ms >= self.clock.ms and all(self.holds(d, token) for d in slots):
            return Decision(True, stamp=stamp)
        waits = [(d.limit.name, wait) for d in demands if (wait := self.look(d, token)[2]) is not None]
        if waits:
            unknown = any(wait == UNKNOWN for _, wait in waits)
            retry_after = None if unknown else max(wait for _, wait in waits) / 1e6
            return Decision(False, retry_after, tuple(name for name, _ in waits))
        rates = [d for d in demands if isinstance(d.limit, RateLimit)]
        stamp = max([self.clock.us, *(p.starts[-1][0] + 1 for d in rates if (p := self.place(d)).starts)])
        for d in rates:
            place, span = self.place(d), round(self.in_force(d)[0].per * 1e6)
            place.starts.append([stamp, d.cost])
            place.starts_end_ms = self.clock.ms + math.ceil((stamp - self.clock.us + span) / 1000) + 1
            self.granted.setdefault((d.limit.name, d.part), {})[stamp] = d.cost
        for d in slots:
            self.place(d).slots[token] = self.clock.ms + round(d.limit.ttl * 1000)
            self.place(d).released.pop(token, None)
        self.receipts[name] = (stamp, self.clock.ms + MEMORY_MS)
        return Decision(True, stamp=stamp)


def limits_machine(clock: Any, client: redis.Redis, *, overrides: bool) -> type[RuleBasedStateMachine]:
    class LimitsMachine(RuleBasedStateMachine):
        @initialize()
        def start(self) -> None:
            clock.reset()
            self.limiter = Limiter(client, KeySpace("test"))
            self.model = Model(clock)
            self.last_take: tuple[list[Demand], str] | None = None
            self.stamps: list[int] = []

        @rule(demands=demand_lists(), asking=st.lists(tokens, min_size=1, max_size=8), step_us=st.sampled_from(STEPS))
        def take(self, demands: list[Demand], asking: list[str], step_us: int) -> None:
            for token in asking:
                expected = self.model.take(demands, token)
                assert self.limiter.take(demands, token=token) == expected
                self.last_take = (demands, token)
                if expected:
                    self.stamps.append(expected.stamp)
                clock.advance(step_us)

        @rule()
        def ask_again(self) -> None:
            """The answer was lost."""
            if self.last_take is not None:
                demands, token = self.last_take
                assert self.limiter.take(demands, token=token) == self.model.take(demands, token)
                self.release(demands, token, 2)
                self.take(demands, [token], 0)

        @rule(demands=demand_lists(), token=tokens, times=st.integers(1, 2))
        def release(self, demands: list[Demand], token: str, times: int) -> None:
            slots = [d for d in demands if isinstance(d.limit, Concurrency)]
            for _ in range(times):
                held = [d for d in slots if self.model.holds(d, token)]
                remembered = any(self.model.place(d).released.get(token, 0) > clock.ms for d in slots)
                assert self.limiter.release(demands, token=token) is (bool(held) or remembered)
                for d in held:
                    del self.model.place(d).slots[token]
                    self.model.place(d).released[token] = clock.ms + MEMORY_MS
                self.model.receipts.pop((token, tuple((d.limit.name, d.part) for d in demands)), None)

        @rule(takes=st.lists(st.tuples(demand_lists(), tokens), max_size=3))
        def renew(self, takes: list[tuple[list[Demand], str]]) -> None:
            expected = []
            for demands, token in takes:
                slots = [d for d in demands if isinstance(d.limit, Concurrency)]
                expected.append(all(self.model.holds(d, token) for d in slots))
                for d in slots:
                    if self.model.holds(d, token):
                        self.model.place(d).slots[token] = clock.ms + round(d.limit.ttl * 1000)
            assert self.limiter.renew_many(takes) == expected

        @rule(demands=demand_lists(rates_only=True), which=st.integers(0, 3), times=st.integers(1, 2))
        def settle(self, demands: list[Demand], which: int, times: int) -> None:
            if not self.stamps:
                return
            stamp = self.stamps[-1 - which % len(self.stamps)]
            for _ in range(times):
                found = 0
                for d in demands:
                    for start in self.model.place(d).starts:
                        if start[0] == stamp:
                            start[1] = d.cost
                            found += 1
                            self.model.granted[d.limit.name, d.part].pop(stamp, None)
                assert self.limiter.settle(demands, stamp=stamp) == found

        @rule(demands=demand_lists(), seconds=st.sampled_from([1, 4]))
        def penalise(self, demands: list[Demand], seconds: int) -> None:
            self.limiter.penalise(demands, retry_after=seconds)
            for d in demands:
                place = self.model.place(d)
                place.penalty_ms = max(place.penalty_ms, clock.ms + seconds * 1000)

        @rule(
            name=st.sampled_from(sorted(LIMITS)),
            part=parts,
            times=st.sampled_from([1, 2, 7]),
            per=st.sampled_from([2.0, 10.0, 90.0]),
            paused=st.booleans(),
            lasting=st.sampled_from([None, 3.0, 40.0]),
        )
        def override(
            self, name: str, part: tuple[str, ...], times: int, per: float, paused: bool, lasting: float | None
        ) -> None:
            if not overrides:
                return
            limit = LIMITS[name]
            value: RateLimit | Concurrency
            if isinstance(limit, RateLimit):
                value = RateLimit((times, per), name=name, paused=paused)
            else:
                value = replace(limit, times=times, paused=paused)
            self.limiter.override(value, *part, lasting=lasting)
            self.model.values[name, part] = (value, 0 if lasting is None else clock.ms + round(lasting * 1000))

        @rule(name=st.sampled_from(sorted(LIMITS)), part=parts)
        def restore(self, name: str, part: tuple[str, ...]) -> None:
            self.limiter.restore(LIMITS[name], *part)
            self.model.values.pop((name, part), None)

        @rule(us=st.sampled_from([0, 1, 999, 1000, 700_000, 1_999_999, 9_999_999, 10_000_000, 60_000_001]))
        def advance(self, us: int) -> None:
            clock.advance(us)

        @rule(demands=demand_lists(), off_us=st.sampled_from([-1, 0, 1]))
        def advance_to_the_edge(self, demands: list[Demand], off_us: int) -> None:
            """To the very moment when a refused take was promised a place, and a microsecond to either side."""
            wait = self.model.look(demands[0], "")[2]
            if wait is not None and wait != UNKNOWN:
                clock.advance(max(0, wait + off_us))

        @rule(demands=demand_lists(), token=tokens)
        def peek(self, demands: list[Demand], token: str) -> None:
            for state, demand in zip(self.limiter.peek(demands), demands, strict=True):
                times, used, wait = self.model.look(demand, "")
                assert (state.times, state.used) == (times, used)
                assert state.retry_after == (None if wait == UNKNOWN else (wait or 0) / 1e6)
                penalty = max(0, self.model.place(demand).penalty_ms * 1000 - clock.us)
                assert state.penalty == penalty / 1e6

        @invariant()
        def no_window_above_the_limit(self) -> None:
            """Judged from the granted stamps alone, whatever the model thinks."""
            if overrides:
                return
            for (name, _), granted in getattr(self, "model", Model(clock)).granted.items():
                limit = LIMITS[name]
                assert isinstance(limit, RateLimit)
                assert busiest_window(granted, round(limit.per * 1e6)) <= limit.times

        @invariant()
        def every_key_ends_or_is_the_operators(self) -> None:
            values = {limit.demand().keys(KeySpace("test"))[2].encode() for limit in LIMITS.values()}
            found = set(client.scan_iter("{*"))
            assert found - values <= set(client.zrange("virtual:ends", 0, -1))

    return LimitsMachine


def busiest_window(granted: dict[int, int], span: int) -> int:
    """The highest cost in any window of `span`, both ends included."""
    stamps = sorted(granted)
    return max((sum(granted[s] for s in stamps if first <= s <= first + span) for first in stamps), default=0)


def run(machine: type[RuleBasedStateMachine]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=30, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


def test_limits_behave_like_the_model(virtual_clock: Any, redis_client: redis.Redis) -> None:
    run(limits_machine(virtual_clock, redis_client, overrides=False))


def test_limits_changed_while_running_behave_like_the_model(virtual_clock: Any, redis_client: redis.Redis) -> None:
    run(limits_machine(virtual_clock, redis_client, overrides=True))
