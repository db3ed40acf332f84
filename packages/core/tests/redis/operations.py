"""Every public operation of the Redis structures, for tests that disturb each of them in the same way.

Run as a program it is the place where children are forked and killed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import redis

from celery_toolkit_core.deadletters import DeadLetter, DeadLetters
from celery_toolkit_core.delayed import Delayed
from celery_toolkit_core.keys import KeySpace
from celery_toolkit_core.leases import Lease, Leases
from celery_toolkit_core.limits import Concurrency, Limiter, RateLimit
from celery_toolkit_testkit.interruptions import serve

RATE = RateLimit((3, 3600.0), name="rate")
SLOTS = Concurrency(2, name="slots", ttl=3600.0)
TAKE = [RATE.demand("part", cost=2), SLOTS.demand("part")]
LONG = 3600.0


class World:
    """The four structures on one client, and what can be seen of them with nothing in it that time changes."""

    def __init__(self, client: redis.Redis) -> None:
        space = KeySpace("operations")
        self.leases = Leases(client, space, permits=2, ttl=LONG)
        self.limiter = Limiter(client, space)
        self.delayed = Delayed(client, space)
        self.letters = DeadLetters(client, space, most=2)
        self.client = client

    def seen(self) -> dict[str, Any]:
        rate, slots = self.limiter.peek(TAKE)
        look = self.delayed.look()
        payloads, places = (self.client.hgetall(key) for key in self.delayed.queue_keys[:2])
        return {
            "lease": sorted(holder.token for holder in self.leases.inspect("name").holders),
            "rate": [rate.times, rate.used, rate.retry_after is None, rate.penalty > 0],
            "slots": [slots.times, slots.used, slots.penalty > 0],
            "delayed": sorted((key.decode(), payloads[key], place.split(b" ", 1)[1]) for key, place in places.items()),
            "look": [look.later, look.ready, look.taken],
            "letters": [{**asdict(replace(letter, at=0.0, cursor=""))} for letter in self.letters],
        }


@dataclass(frozen=True)
class Operation:
    """One public operation: what there is before, what it does, whether asking again gets the very same answer."""

    act: Callable[[World, Any], Any]
    prepare: Callable[[World], Any] = lambda world: None
    same_answer: bool = True


def _letter(name: str) -> DeadLetter:
    return DeadLetter(name, "task", "reason", b"\x00\xff" + name.encode(), {"traceback": "..."})


def _put_letters(world: World) -> None:
    for name in "ab":
        world.letters.put(_letter(name))


def _take_letters(world: World) -> None:
    _put_letters(world)
    world.letters.take_oldest(2, token="taker", lease=LONG)


def _put_entries(world: World) -> None:
    for name in "abc":
        world.delayed.put(name, b"\xff" + name.encode())


def _take_entries(world: World) -> None:
    _put_entries(world)
    world.delayed.take(2, token="taker", lease=LONG)


OPERATIONS: dict[str, Operation] = {
    "lease acquire": Operation(lambda w, _: isinstance(w.leases.acquire("name", "t"), Lease)),
    "lease renew": Operation(lambda w, _: w.leases.renew("name", "t"), lambda w: bool(w.leases.acquire("name", "t"))),
    "lease release": Operation(
        lambda w, _: w.leases.release("name", "t"), lambda w: bool(w.leases.acquire("name", "t"))
    ),
    "limits take": Operation(lambda w, _: w.limiter.take(TAKE, token="t").granted),
    "limits refuse": Operation(
        lambda w, _: w.limiter.take(TAKE, token="t").blocked_by,
        lambda w: w.limiter.take(TAKE, token="other").stamp,
    ),
    "limits renew": Operation(
        lambda w, _: w.limiter.renew(TAKE, token="t"), lambda w: w.limiter.take(TAKE, token="t").stamp
    ),
    "limits release": Operation(
        lambda w, _: w.limiter.release(TAKE, token="t"), lambda w: w.limiter.take(TAKE, token="t").stamp
    ),
    "limits settle": Operation(
        lambda w, stamp: w.limiter.settle([RATE.demand("part", cost=1)], stamp=stamp),
        lambda w: w.limiter.take(TAKE, token="t").stamp,
    ),
    "limits penalise": Operation(lambda w, _: w.limiter.penalise(TAKE, retry_after=LONG)),
    "limits override": Operation(lambda w, _: w.limiter.override(RateLimit("7/h", name="rate"), lasting=LONG)),
    "limits restore": Operation(
        lambda w, _: w.limiter.restore(RATE), lambda w: w.limiter.override(RateLimit("7/h", name="rate"))
    ),
    "delayed put": Operation(lambda w, _: w.delayed.put("d", b"\xff", token="t") > 0, _put_entries),
    "delayed take": Operation(
        lambda w, _: [entry.id for entry in w.delayed.take(2, token="t", lease=LONG).entries], _put_entries
    ),
    "delayed confirm": Operation(lambda w, _: w.delayed.confirm("taker", ["a", "c"]), _take_entries),
    "delayed give back": Operation(lambda w, _: w.delayed.give_back("taker", ["a", "b"]), _take_entries),
    "delayed discard": Operation(lambda w, _: w.delayed.discard(["a", "c"]), _take_entries, same_answer=False),
    "letters put": Operation(lambda w, _: w.letters.put(_letter("c"), token="t"), _put_letters),
    "letters take": Operation(
        lambda w, _: [letter.id for letter in w.letters.take(["b"], token="t", lease=LONG).letters], _put_letters
    ),
    "letters take oldest": Operation(
        lambda w, _: [letter.id for letter in w.letters.take_oldest(1, token="t", lease=LONG).letters], _put_letters
    ),
    "letters confirm": Operation(lambda w, _: w.letters.confirm("taker", ["a", "x"]), _take_letters),
    "letters give back": Operation(lambda w, _: w.letters.give_back("taker", ["a", "b"]), _take_letters),
    "letters purge": Operation(lambda w, _: w.letters.purge(["a"]), _take_letters, same_answer=False),
    "letters purge older": Operation(lambda w, _: w.letters.purge_older(), _put_letters, same_answer=False),
}


if __name__ == "__main__":
    serve(lambda client, operation, data: OPERATIONS[operation].act(World(client), data))
