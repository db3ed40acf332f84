"""What one attempt of a task wants of Redis: its lock and its limits, as the keys and arguments of the scripts."""

from __future__ import annotations

import json
import random
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from celery_toolkit_core import limits as core

from .calls import Call, ttl_of
from .declarations import limit_name
from .errors import TooFewReplicas
from .options import Strategy
from .unique import Lock, demands_of, lane_of, lock_of

if TYPE_CHECKING:
    from celery_toolkit_core.celery.outcomes import Outcome
    from celery_toolkit_core.keys import KeySpace

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
        self.unique = unique = task.heimdall_config.unique
        self.one_body = unique is not None and (unique.until != "start" or unique.while_executing)
        self.lock: Lock | None = lock_of(task, label or call.key(unique)) if unique else None
        self.lock_keys = [self.lock.lane, self.lock.key] if self.lock else [self.store.space.key("none")] * 2
        self.demands = demands = () if bare else tuple(demands_of(task, call))
        #: When the body started, in microseconds of Redis; the identity of the start.
        self.stamp = 0
        self._question = uuid4().hex
        #: Seconds until the next look, when the body may not start yet; and what ends the task, when it may not at all.
        self.wait = 0.0
        self.refusal: Refusal | None = None
        self.limit_keys, self.limit_args, self.limit_lane, self._limit_spec = _limits(self.store.space, demands)
        strategies = [limit.strategy for limit in task.heimdall_config.limits] if demands else []
        self._strategies = "".join(_LETTERS.get(strategy, "w") for strategy in strategies)
        self.retries = Strategy.RETRY in strategies
        if self.retries:
            # It waits alone: who comes later may be lucky before it.
            self.limit_lane = self.store.space.key("lane", "retry", task_id)
            self._limit_spec = _spec(self.limit_lane, self.limit_keys, demands, spread=SPREAD)
        self.limits_lane = lane_of(self.limit_lane) if demands else ""

    @property
    def until(self) -> str:
        """The scope of the lock, in the scripts' words."""
        return self.unique.until if self.unique else "none"

    def specs(self) -> list[str]:
        """What the wake scripts of the two lanes need."""
        return [
            self._limit_spec,
            json.dumps({"keys": self.lock_keys, "hung_ms": self.hung_ms, "label": self.lock.label})
            if self.lock
            else "",
        ]

    @property
    def ttl_ms(self) -> int:
        """The lock's life in milliseconds."""
        return round(ttl_of(self.unique, self.store.settings) * 1000) if self.unique else 1

    @property
    def hung_ms(self) -> int:
        """The age from which a body counts as hung."""
        return max(self.ttl_ms, round(self.store.settings.stuck_after * 1000))

    @property
    def lease_ms(self) -> int:
        """The lease in milliseconds."""
        return round(self.store.settings.lease * 1000)

    def enter(self, *, woken: bool, queue: str, message: bytes, later: bool, join: bool, holder: str) -> list[Any]:
        """Decide everything in one script; see enter.lua for the answer."""
        keys = [*self.store.parking, self.limit_lane, *self.lock_keys, self.store.began(self.task_id), *self.limit_keys]
        args = [
            self.task_id, self.token, self.attempt, int(woken), self.lease_ms, self.until, int(self.one_body),
            self.ttl_ms, self.hung_ms, self.limits_lane, lane_of(self.lock_keys[0]), queue, message, int(later),
            int(join), holder, self.lock.label if self.lock else "", self.task.name, *self.specs(),
            self._strategies, self._spread(), *self.limit_args,
        ]  # fmt: skip
        try:
            answer: list[Any] = self.store.run_replicated("enter", keys, args)
        except TooFewReplicas:
            self.finish("requeued", comes_back=True)
            raise
        return [each.decode() if isinstance(each, bytes) else each for each in answer]

    def start(self) -> str:
        """The strict decision where the body starts: ``go``, ``parked``, ``refused`` or ``stale``; see start.lua."""
        keys = [*self.store.parking, self.limit_lane, self.lock_keys[1], self.store.began(self.task_id)]
        args = [self.task_id, self.token, self.limits_lane, self._limit_spec, self.until, int(self.one_body)]
        args += [self._strategies, self._spread(), self._question, *self.limit_args]
        verdict, *rest = self.store.run("start", [*keys, *self.limit_keys], args)
        if verdict == b"go":
            self.stamp = int(rest[0])
        elif verdict == b"parked":
            self.wait = rest[0] / 1000
        elif verdict == b"refused":
            self.refusal = self.refusal_of(*rest)
        return str(verdict.decode())

    def refusal_of(self, place: int, wait_ms: int) -> Refusal:
        """What ends the task: the limit at `place` from 1."""
        strategy = self.task.heimdall_config.limits[place - 1].strategy
        return Refusal(strategy.value, limit_name(self.task, self.demands[place - 1]), wait_ms / 1000)

    def renewal(self) -> tuple[list[str], list[Any]]:
        """The keys and arguments of its part in the script ``renew``."""
        held = [self.task_id, self.token, self.lease_ms, int(self.one_body)]
        return [self.lock_keys[1], *self.limit_keys], [*held, *self.limit_args]

    def finish(self, outcome: Outcome, *, comes_back: bool) -> bool:
        """Give everything back; True when somebody who waits may go on now."""
        until = "finish" if self.until == "expiry" and outcome in _WITHOUT_EFFECT else self.until
        keys = [*self.store.parking, self.limit_lane, *self.lock_keys, self.store.began(self.task_id), *self.limit_keys]
        args = [self.task_id, self.token, self.attempt, outcome, int(comes_back), until]
        lanes = [self.limits_lane, lane_of(self.lock_keys[0])]
        return bool(self.store.run("finish", keys, [*args, *lanes, *self.limit_args]))

    def _spread(self) -> int:
        return spread(SPREAD) if self.retries else 0


def spread(most: int) -> int:
    """A random number of permille from 0 to `most`."""
    return random.randint(0, most)  # noqa: S311  # spreads waiters, guards nothing


# Most limits are the same for every call of a task, and for every tenant's.
@lru_cache(maxsize=1024)
def _limits(space: KeySpace, demands: tuple[core.Demand, ...]) -> tuple[list[str], list[str | int], str, str]:
    """Of some limits: their keys and arguments in the scripts, their lane, and the spec of that lane."""
    if not demands:
        return [], [0], space.key("none"), ""
    keys, args = core.script_keys(space, demands), core.script_args(demands)
    lane = space.key("lane", *keys)
    return keys, args, lane, _spec(lane, keys, demands)


def _spec(lane: str, keys: list[str], demands: tuple[core.Demand, ...], **more: int) -> str:
    # The names are for people.
    names = [[demand.limit.name, *demand.part] for demand in demands]
    return json.dumps({"keys": [lane, *keys], "args": core.script_args(demands), "names": names, **more})
