"""Every script of the backlog that changes something, for tests that disturb each of them in the same way.

Run as a program it is the place where children are forked and killed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from celery_ranch import places
from celery_ranch.backlog import STRUCTURES, Backlog, client_of, queue_of
from celery_ranch.entries import Claimed, Report, Submission
from celery_toolkit_core.keys import KeySpace
from celery_toolkit_testkit.interruptions import serve

QUEUE = queue_of("", "celery")
A, B = client_of("a"), client_of("b")
LONG = 3600.0

# All hashes and sorted sets as JSON, records unpacked, without what time alone changes.
_SEEN = """
local timed = { at = true, taken = true, before = true, t = true }
local found = {}
for _, key in ipairs(KEYS) do
  local kind, seen = redis.call('TYPE', key).ok, {}
  if kind == 'hash' then
    local flat = redis.call('HGETALL', key)
    for at = 1, #flat, 2 do
      local read, value = pcall(cmsgpack.unpack, flat[at + 1])
      if read and type(value) == 'table' then
        for name in pairs(timed) do value[name] = nil end
        seen[flat[at]] = value
      elseif not string.find(key, 'served') and not string.find(key, 'reissued') then
        seen[flat[at]] = flat[at + 1]
      end
    end
  elseif kind == 'zset' then
    for _, member in ipairs(redis.call('ZRANGE', key, 0, -1)) do seen[member] = '' end
  elseif kind == 'list' then
    seen.length = redis.call('LLEN', key)
  end
  if next(seen) then found[key] = seen end
end
return cjson.encode(found)
"""


class World:
    """A backlog on one client, and what can be seen of it with nothing in it that time changes."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.backlog = Backlog(client, KeySpace("ranch", "operations"))

    def seen(self) -> Any:
        raw = self.client.eval(_SEEN, len(STRUCTURES), *self.backlog.keys)
        return json.loads(raw.decode("latin-1"))  # messages are any bytes

    def put(self, entry: str, label: str = "a", **more: Any) -> Any:
        task = Submission(b"\xff" + entry.encode(), QUEUE, b"celery", client_of(label), label, task_id=entry, **more)
        return self.backlog.enqueue(task, entry * 32)

    def fill(self) -> None:
        for entry, label in (("1", "a"), ("2", "a"), ("3", "b"), ("4", "a")):
            self.put(entry, label)

    def claim(self, ticket: str = "ticket", token: str = "token", *, lease: float = LONG, **more: Any) -> Any:
        return self.backlog.claim(QUEUE, ticket, token, lease=lease, max_attempts=2, **more)

    def claimed(self, **more: Any) -> Claimed:
        found: Claimed = self.claim(**more).claimed
        assert found
        return found

    def settle(self, kind: str = "end", a: str = "done", b: str = "0.25") -> Any:
        return self.backlog.report([Report(kind, "1" * 32, "token", a, b)])

    def wait_past_lease(self) -> None:
        while self.client.zcount(self.backlog.key("inflight"), "-inf", self._now()) == 0:
            pass

    def wait_until_due(self) -> None:
        while self.client.zcount(self.backlog.key("scheduled"), "-inf", self._now()) == 0:
            pass

    def _now(self) -> float:
        seconds, micro = self.client.time()
        return seconds * 1000 + micro // 1000 - 1


@dataclass(frozen=True)
class Operation:
    """One script: what there is before, what it does, whether asking again gets the very same answer."""

    act: Callable[[World], Any]
    prepare: Callable[[World], Any] = World.fill
    same_answer: bool = False


def _claimed(world: World) -> None:
    world.fill()
    world.claimed()


def _overdue(world: World) -> None:
    world.fill()
    world.claimed(token="dead", lease=0.001)
    world.wait_past_lease()


def _due(world: World) -> None:
    world.put("1", delay=0.001)
    world.wait_until_due()


def _dead(world: World) -> None:
    for _ in range(2):
        _overdue(world)
        world.backlog.tend(max_attempts=2)


def _set(world: World, *fields: Any) -> Any:
    return world.backlog.run("client", [A, "a", *fields])


def _held(world: World) -> None:
    world.fill()
    _set(world, "x", 1)
    world.claim()
    world.claim("other")
    world.claim("third")


OPERATIONS: dict[str, Operation] = {
    "enqueue": Operation(lambda w: w.put("5"), lambda w: w.fill()),
    "enqueue, first of all": Operation(lambda w: w.put("5", weight=0.5), lambda w: None),
    "enqueue, scheduled": Operation(lambda w: w.put("5", delay=LONG)),
    "claim": Operation(lambda w: (w.claim().state, w.claimed().entry), same_answer=True),
    "claim that settles": Operation(
        lambda w: w.claim("other", reports=[Report("end", "1" * 32, "token", "done", "0.25")]).claimed.entry,
        _claimed,
        same_answer=True,
    ),
    "claim of an overdue ticket": Operation(lambda w: w.claim().claimed.entry, _overdue, same_answer=True),
    "end": Operation(lambda w: w.settle(), _claimed),
    "end without a body": Operation(lambda w: w.settle(a="expired", b=""), _claimed),
    "handed back": Operation(lambda w: w.settle(a="handed_back limited", b=""), _claimed),
    "requeued": Operation(lambda w: w.settle(a="requeued"), _claimed),
    "quarantined": Operation(lambda w: w.settle(a="quarantined", b=""), _claimed),
    "start": Operation(lambda w: w.settle("start"), _claimed, same_answer=True),
    "lost": Operation(lambda w: w.settle("lost", "", ""), _claimed),
    "weigh": Operation(lambda w: w.settle("weigh", "3.0", ""), _claimed, same_answer=True),
    "end of a capped one": Operation(lambda w: w.settle(), _held),
    "tend, a dead worker": Operation(lambda w: w.backlog.tend(max_attempts=3), _overdue),
    "tend, the last attempt": Operation(lambda w: w.backlog.tend(max_attempts=1), _overdue),
    "tend, what is due": Operation(lambda w: w.backlog.tend(max_attempts=3), _due),
    "set a weight": Operation(lambda w: _set(w, "w", "0.5"), same_answer=True),
    "pause": Operation(lambda w: _set(w, "h", "1"), same_answer=True),
    "lift a cap": Operation(lambda w: _set(w, "x", ""), _held),
    "purge": Operation(lambda w: w.backlog.run("purge", [A, 100, QUEUE])),
    "retry the dead": Operation(lambda w: places.decide(w.backlog, "retry", ["1" * 32]), _dead),
    "drop the dead": Operation(lambda w: places.decide(w.backlog, "drop", ["1" * 32]), _dead),
    "withdraw": Operation(lambda w: w.backlog.run("withdraw", ["1" * 32]), same_answer=True),
    "profile": Operation(lambda w: w.backlog.run("profile", [B, "b", "", '{"x":1}', "f" * 32]), same_answer=True),
}


if __name__ == "__main__":
    serve(lambda client, operation, _: OPERATIONS[operation].act(World(client)))
