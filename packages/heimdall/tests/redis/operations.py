"""Every call of heimdall that changes Redis, for tests that disturb each of them in the same way.

Run as a program it is the place where children are forked and killed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from celery import Celery

from celery_heimdall import Concurrency, HeimdallTask, RateLimit, Unique, store, unique
from celery_heimdall.calls import Call
from celery_heimdall.claims import Claim
from celery_heimdall.inspection import locks, parked
from celery_heimdall.unique import acquire_lock, lock_of, release_lock
from celery_heimdall.waking import Waker
from celery_toolkit_core.limits import Limiter
from celery_toolkit_testkit.interruptions import serve

LONG = 3600.0
LOCK = ("key", "task", "state", "holder", "waiting")

# In the caller's thread instead of another: what happens when must not depend on luck.
unique.confirm_soon = lambda where, lock, task_id, attempt: where.run("confirm", [lock], [task_id, attempt])


class World:
    """Two tasks on one client, and what can be seen of them with nothing in it that time changes."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.app = Celery("operations", broker="memory://", set_as_current=False)
        self.app.conf.update(heimdall_lease=LONG, heimdall_wake_timeout=LONG)
        self.store = store.store_of(self.app, client)

        class Own(HeimdallTask):
            abstract = True

            def setup_redis(self) -> Any:
                return client

        limits = [RateLimit("1/h", name="rate"), Concurrency(5, name="slots")]
        self.unique = self.task("unique", Own, unique=Unique(key="one"))
        self.started = self.task("started", Own, unique=Unique(key="one", until="start"))
        self.limited = self.task("limited", Own, limits=limits)
        self.both = self.task("both", Own, unique=Unique(key="one"), limits=limits)
        self.app.finalize()

    def task(self, name: str, base: Any, **options: Any) -> Any:
        def body() -> None:
            """Never runs here."""

        return self.app.task(name=name, base=base, shared=False, **options)(body)

    def claim(self, task: Any, task_id: str, token: str = "1") -> Claim:
        return Claim(task, Call(task), None, task_id, 0, f"{task_id}/{token}")

    def enter(self, task: Any, task_id: str, token: str = "1", *, woken: bool = False) -> list[Any]:
        options: dict[str, Any] = {"queue": "q", "later": False, "join": False, "holder": ""}
        return self.claim(task, task_id, token).enter(woken=woken, message=b"" if woken else b"message", **options)

    def wake(self) -> int:
        # Whoever looked before has a lane for two seconds; they are over.
        self.client.zadd(self.store.parking[2], {self.claim(self.limited, "a").limits_lane: 0}, xx=True)
        waker, woken = Waker(self.app), []
        waker._publish = lambda *message: woken.append(message)  # type: ignore[method-assign]  # no broker here
        waker.look(self.store)
        return len(woken)

    def seen(self) -> dict[str, Any]:
        states = Limiter(self.client, self.store.space).peek(self.claim(self.limited, "").demands)
        return {
            "locks": [
                (row["key"], row["task"], row["state"], row["holder"], row["waiting"]) for row in locks(self.store)
            ],
            "parked": sorted((row["id"], row["state"], row["parkings"]) for row in parked(self.store)),
            "used": [state.used for state in states],
            "kinds": Counter(key.split(b":")[3] for key in self.client.keys("{heimdall*")),
        }


@dataclass(frozen=True)
class Operation:
    """One call: what there is before, what it does, how many scripts it is, and whether asking again says the same."""

    act: Callable[[World], Any]
    prepare: Callable[[World], Any] = lambda world: None
    scripts: int = 1
    same_answer: bool = True


def _fill(world: World) -> None:
    """Somebody has the only place of the rate limit."""
    world.enter(world.limited, "other")
    world.claim(world.limited, "other").start()


def _park(world: World) -> None:
    _fill(world)
    world.enter(world.limited, "a")


def _make_room(world: World) -> None:
    """One waits, and there is room: the other's start is forgotten."""
    _park(world)
    world.client.delete(*[key for key in world.client.keys("*") if b":limit:" in key])


def _reserve(world: World) -> None:
    lock_of(world.unique, "one").reserve("a", 0, LONG)


def _run(world: World) -> None:
    _reserve(world)
    world.enter(world.both, "a")


def _began(world: World) -> None:
    _run(world)
    world.claim(world.both, "a").start()


def _send(world: World) -> Any:
    return world.unique.apply_async(task_id="a").deduplicated


OPERATIONS: dict[str, Operation] = {
    "send": Operation(_send, scripts=2),
    "send a duplicate": Operation(
        lambda w: w.unique.delay().id, lambda w: lock_of(w.unique, "one").reserve("other", 0, LONG)
    ),
    "acquire_lock": Operation(lambda w: acquire_lock(w.unique, "one", LONG, task_id="a"), scripts=2),
    "release_lock": Operation(lambda w: release_lock(w.unique, "one"), _run, same_answer=False),
    "cancel": Operation(lambda w: lock_of(w.unique, "one").cancel("a"), _reserve),
    "enter, unique": Operation(lambda w: w.enter(w.unique, "a"), _reserve),
    "enter, limited": Operation(lambda w: w.enter(w.limited, "a")),
    "enter, both": Operation(lambda w: w.enter(w.both, "a"), _reserve),
    "enter, no room": Operation(lambda w: w.enter(w.limited, "a")[0], _fill, same_answer=False),
    "enter, behind another": Operation(
        lambda w: w.enter(w.unique, "a", "2")[0], lambda w: w.enter(w.unique, "a"), same_answer=False
    ),
    "begin": Operation(
        lambda w: w.store.run("begin", [lock_of(w.started, "one").key], ["a"]), _reserve, same_answer=False
    ),
    "start": Operation(lambda w: w.claim(w.both, "a").start(), _run, same_answer=False),
    "finish": Operation(lambda w: w.claim(w.both, "a").finish("success", comes_back=False), _began),
    "finish, comes back": Operation(lambda w: w.claim(w.both, "a").finish("retry", comes_back=True), _began),
    "finish, never began": Operation(lambda w: w.claim(w.both, "a").finish("requeued", comes_back=True), _run),
    "wake": Operation(lambda w: w.wake(), _make_room, scripts=2, same_answer=False),
}


if __name__ == "__main__":
    serve(lambda client, operation, _: OPERATIONS[operation].act(World(client)))
