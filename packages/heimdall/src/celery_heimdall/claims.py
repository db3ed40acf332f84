"""What one attempt of a task wants of Redis: its lock and its limits, as the keys and arguments of the scripts."""

from __future__ import annotations

import json
import random
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from os import urandom
from typing import TYPE_CHECKING, Any, NamedTuple

from celery_toolkit_core import limits as core
from celery_toolkit_core.errors import InvalidParameter
from celery_toolkit_core.shortcut import Words

from .calls import Call, ttl_of
from .declarations import limit_name
from .errors import TooFewReplicas
from .options import Concurrency, Strategy
from .unique import Lock, demands_of, lane_of, lock_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery_toolkit_core.celery.outcomes import Outcome
    from celery_toolkit_core.keys import KeySpace

    from .options import RateLimit, Unique
    from .store import Store

#: Ends without a body that ran to its end: they free even a key that is kept until its expiry.
_WITHOUT_EFFECT: tuple[Outcome, ...] = ("revoked", "expired", "terminated", "lost")


#: How the scripts know the strategies that end a task; all others wait.
_LETTERS = {Strategy.DROP: "d", Strategy.RAISE: "x"}

#: Most permille of the expected wait that a task of ``strategy="retry"`` waits longer.
SPREAD = 500


class Refusal(NamedTuple):
    """A limit that ends a task: by which strategy, its name, and seconds until it would have room."""

    strategy: str
    limit: str
    retry_after: float


class Claim:
    """What one attempt of a task wants: its lock and its limits, as keys and arguments of scripts.

    Args:
        task: The task.
        call: The call, for its key and its limits.
        label: The key of the lock where the message names it.
        task_id: The task's id.
        attempt: The number of the retry, 0 at first.
        token: By what this delivery holds what it holds.
        bare: Leave the limits out, because they cannot be told.
    """

    def __init__(
        self, task: Any, call: Call, label: str | None, task_id: str, attempt: int, token: str, *, bare: bool = False
    ) -> None:
        self.task, self.task_id, self.attempt, self.token = task, task_id, attempt, token
        self.store: Store = task.heimdall_store
        self._plan = plan = plan_of(task)
        self.unique, self.one_body, self.lease_ms = plan.unique, plan.one_body, plan.lease_ms
        self.lock: Lock | None = lock_of(task, label or call.key(plan.unique)) if plan.unique else None
        none = self.store.none
        self.lock_keys = (self.lock.lane, self.lock.key) if self.lock else (none, none)
        #: When the body started, in microseconds of Redis; the identity of the start.
        self.stamp = 0
        #: When it asked to enter, in seconds of the machine's monotonic clock.
        self.asked = 0.0
        self._question = ""
        #: Seconds until the next look, when the body may not start yet; and what ends the task, when it may not at all.
        self.wait = 0.0
        self.refusal: Refusal | None = None
        self.limits = (
            plan.no_limits if bare else plan.limits or _limits(self.store.space, tuple(demands_of(task, call)))
        )
        self.retries = plan.retries and bool(self.demands)
        if self.retries:
            # It waits alone: who comes later may be lucky before it.
            self.limits = self.limits.in_lane(self.store.space.key("lane", "retry", task_id), spread=SPREAD)

    @property
    def demands(self) -> tuple[core.Demand, ...]:
        """What it wants of its limits."""
        return self.limits.demands

    @property
    def limits_lane(self) -> str:
        """The name of the lane in which those wait who find the limits full; empty without limits."""
        return self.limits.lane

    @property
    def until(self) -> str:
        """The scope of the lock, in the scripts' words."""
        return self._plan.until

    def enter(self, *, woken: bool, queue: str, message: bytes, later: bool, join: bool, holder: str) -> list[Any]:
        """Decide everything in one script; see enter.lua for the answer."""
        limits = self.limits
        # Before the question: the process may be stopped until it reads the answer, and the leases run meanwhile.
        self.asked = time.monotonic()
        args = (
            self.task_id, self.token, self.attempt, int(woken), queue, message, int(later), int(join), holder,
            self.lock.label if self.lock else "", self._spread(), self._plan.words, limits.spec, limits.args,
        )  # fmt: skip
        try:
            answer: Any = self.store.run_replicated("enter", self._keys(), args)
        except TooFewReplicas:
            self.finish("requeued", comes_back=True)
            raise
        if isinstance(answer, int):
            return ["run", answer, ""]
        return [each.decode() if isinstance(each, bytes) else each for each in answer]

    def start(self) -> str:
        """The strict decision where the body starts: ``go``, ``parked``, ``refused`` or ``stale``; see start.lua."""
        limits = self.limits
        # The same for the same question again, whose answer was lost.
        self._question = self._question or urandom(8).hex()
        args = (self.task_id, self.token, self._spread(), self._question, self._plan.words, limits.spec, limits.args)
        answer: Any = self.store.run("start", self._keys(), args)
        if isinstance(answer, int):
            self.stamp = answer
            return "go"
        verdict, *rest = answer
        if verdict == b"parked":
            self.wait = rest[0] / 1000
        elif verdict == b"refused":
            self.refusal = self.refusal_of(*rest)
        return str(verdict.decode())

    def refusal_of(self, place: int, wait_ms: int) -> Refusal:
        """What ends the task: the limit at `place` from 1."""
        strategy = self.task.heimdall_config.limits[place - 1].strategy
        return Refusal(strategy.value, limit_name(self.task, self.demands[place - 1]), wait_ms / 1000)

    def renewal(self) -> tuple[list[Any], list[Any]]:
        """The keys and arguments of its part in the script ``renew``."""
        held = [self.task_id, self.token, self.lease_ms, int(self.one_body)]
        return [self.lock_keys[1], self.limits.keys], [*held, *self.limits.args.words[1:]]

    def finish(self, outcome: Outcome, *, comes_back: bool) -> bool:
        """Give everything back; True when somebody who waits may go on now."""
        return bool(self.store.run("finish", self._keys(), self._ending(outcome, comes_back)))

    def finish_unheard(self, outcome: Outcome, *, comes_back: bool, heard: Callable[[Any], None]) -> bool:
        """Likewise, but the answer is read later; see `Scripts.tell`."""
        return self.store.tell("finish", self._keys(), self._ending(outcome, comes_back), heard)

    def _ending(self, outcome: Outcome, comes_back: bool) -> tuple[Any, ...]:
        until = "finish" if self.until == "expiry" and outcome in _WITHOUT_EFFECT else self.until
        return self.task_id, self.token, self.attempt, outcome, int(comes_back), until, self.limits.args

    def _keys(self) -> tuple[Any, ...]:
        limits = self.limits
        return (
            self.store.parking_words, limits.lane_key, *self.lock_keys, self.store.began(self.task_id), limits.keys
        )  # fmt: skip

    def _spread(self) -> int:
        return spread(SPREAD) if self.retries else 0


def spread(most: int) -> int:
    """A random number of permille from 0 to `most`."""
    return random.randint(0, most)  # noqa: S311  # spreads waiters, guards nothing


class Limits(NamedTuple):
    """Some limits as the scripts take them.

    Attributes:
        demands: What is wanted of each.
        keys: Their keys.
        args: The name of their lane, or an empty one without limits, and their arguments.
        lane_key: The key of that lane.
        lane: Its name.
        spec: What its wake script needs.
    """

    demands: tuple[core.Demand, ...]
    keys: Words
    args: Words
    lane_key: str
    lane: str
    spec: str

    def in_lane(self, lane_key: str, **more: int) -> Limits:
        """The same, with another lane."""
        lane, args = lane_of(lane_key), core.script_args(self.demands)
        # The names are for people.
        names = [[demand.limit.name, *demand.part] for demand in self.demands]
        spec = json.dumps({"keys": [lane_key, *self.keys.words], "args": args, "names": names, **more})
        return self._replace(args=Words(lane, *args), lane_key=lane_key, lane=lane, spec=spec)


# Most limits are the same for every call of a task, and for every tenant's.
@lru_cache(maxsize=1024)
def _limits(space: KeySpace, demands: tuple[core.Demand, ...]) -> Limits:
    keys = core.script_keys(space, demands)
    found = Limits(demands, Words(*keys), Words("", 0), space.key("none"), "", "")
    return found.in_lane(space.key("lane", *keys)) if demands else found


@dataclass(frozen=True, slots=True)
class Plan:
    """What is the same for every call of a task.

    Attributes:
        unique: Whether and how it is unique.
        until: The scope of its lock, in the scripts' words.
        one_body: Whether one body may run at a time.
        lease_ms: The lease in milliseconds.
        words: The arguments of the scripts that come of the task alone; see enter.lua.
        retries: Whether it tries again, instead of waiting, where a limit is full.
        no_limits: What it wants without its limits.
        limits: What it wants of its limits, if every call wants the same.
    """

    unique: Unique | None
    until: str
    one_body: bool
    lease_ms: int
    words: Words
    retries: bool
    no_limits: Limits
    limits: Limits | None


def plan_of(task: Any) -> Plan:
    """What is the same for every call of the task."""
    plan: Plan | None = task.__dict__.get("_heimdall_plan")
    if plan is None:
        plan = task.__dict__["_heimdall_plan"] = _plan(task)
    return plan


def _plan(task: Any) -> Plan:
    store, unique, limits = task.heimdall_store, task.heimdall_config.unique, task.heimdall_config.limits
    settings = store.settings
    until = unique.until if unique else "none"
    one_body = unique is not None and (unique.until != "start" or unique.while_executing)
    lease_ms = round(settings.lease * 1000)
    ttl_ms = round(ttl_of(unique, settings) * 1000) if unique else 1
    hung_ms = max(ttl_ms, round(settings.stuck_after * 1000))
    strategies = "".join(_LETTERS.get(limit.strategy, "w") for limit in limits)
    same: Limits | None = None
    if not any(limit.by is not None or any(map(callable, _given(limit))) for limit in limits):
        with suppress(InvalidParameter):  # each call will say so
            same = _limits(store.space, tuple(demands_of(task, Call(task))))
    return Plan(
        unique, until, one_body, lease_ms,
        Words(lease_ms, until, int(one_body), ttl_ms, hung_ms, task.name, strategies),
        any(limit.strategy is Strategy.RETRY for limit in limits),
        _limits(store.space, ()),
        same,
    )  # fmt: skip


def _given(limit: RateLimit | Concurrency) -> tuple[Any, ...]:
    if isinstance(limit, Concurrency):
        return (limit.key,)
    return limit.key, limit.rate_limit, limit.cost
