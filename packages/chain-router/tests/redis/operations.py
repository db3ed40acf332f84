"""Every operation on the membership and on orphaned messages, for tests that disturb each of them in the same way.

Run as a program it is the place where children are forked and killed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import redis

from celery_chain_router.membership import Member, Membership
from celery_chain_router.redis_broker import RedisBroker
from celery_chain_router.traffic import Traffic
from celery_toolkit_core.keys import KeySpace
from celery_toolkit_testkit.interruptions import serve

SPACE = KeySpace("chain-router", "test")
RECORD = Member("", "up").record()
LISTS = ("dead", "a", "b")


class World:
    """The membership and the lists of a broker, and what can be seen of them with nothing in it that time changes."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.members = Membership(client, SPACE, lease=1000)
        # What of kombu's channel is asked for; its pool is the client's own, where the victims die.
        channel = SimpleNamespace(
            pool=client.connection_pool,
            priority_steps=[0],
            unacked_key="unacked",
            unacked_index_key="unacked_index",
            _q_for_pri=lambda queue, priority: queue,
            _get_message_priority=lambda message, reverse: 0,
            _lookup=lambda exchange, routing_key: [routing_key],
        )
        self.broker = RedisBroker(channel)

    def seen(self) -> dict[str, Any]:
        view = self.members.view()
        tokens = self.client.hgetall(SPACE.key("tokens"))
        return {
            "members": {name: (member.state, tokens.get(name.encode())) for name, member in view.members.items()},
            "traffic": self.members.traffic(),
            "lists": {name: [message_id(raw) for raw in self.client.lrange(name, 0, -1)] for name in LISTS},
            "unacked": sorted(self.client.hkeys("unacked")),
            "index": self.client.zrange("unacked_index", 0, -1),
        }

    def join(self, name: str, token: str) -> None:
        self.members.join([name], token, RECORD)

    def die(self, name: str) -> None:
        """What the passing of time does to a worker that gives no sign of life."""
        self.client.zadd(SPACE.key("ends"), {name: 1})


def message(number: int, queue: str) -> str:
    about = {"delivery_info": {"exchange": "", "routing_key": queue}}
    return json.dumps({"body": "", "headers": {"id": number}, "properties": about})


def message_id(raw: bytes) -> int:
    return int(json.loads(raw)["headers"]["id"])


def place(queue: str, message: dict[str, Any]) -> str | None:
    number = message["headers"]["id"]
    return None if number == 3 else "ab"[number % 2]


@dataclass(frozen=True)
class Operation:
    """One operation: what there is before, what it does, whether asking again gets the very same answer."""

    act: Callable[[World], Any]
    prepare: Callable[[World], Any] = lambda world: None
    same_answer: bool = True


def _two(world: World) -> None:
    world.join("w1", "t1")
    world.join("w2", "t2")


def _one_of_two_is_dead(world: World) -> None:
    _two(world)
    world.die("w1")


def _waiting(world: World) -> None:
    world.client.lpush("dead", *(message(number, "dead") for number in range(6)))


def _in_hand(world: World) -> None:
    for number in range(6):
        queue = "dead" if number < 5 else "other"
        world.client.hset("unacked", f"tag{number}", json.dumps([json.loads(message(number, queue)), "", queue]))
        world.client.zadd("unacked_index", {f"tag{number}": number})


OPERATIONS: dict[str, Operation] = {
    "join": Operation(lambda w: w.members.join(["w1"], "t1", RECORD).name),
    "join a slot": Operation(lambda w: w.members.join([], "t3", RECORD, slots="w").name, _two),
    "take over from the dead": Operation(lambda w: w.members.join(["w1"], "t3", RECORD).name, _one_of_two_is_dead),
    "sign of life": Operation(lambda w: w.members.join(["w1"], "t1", RECORD, traffic=Traffic(7.0).record()).name, _two),
    "sign of life that takes the dead off": Operation(
        lambda w: w.members.join(["w2"], "t2", RECORD).name, _one_of_two_is_dead
    ),
    "come back after one's own death": Operation(
        lambda w: w.members.join(["w1"], "t1", RECORD).name,
        lambda w: (_one_of_two_is_dead(w), w.join("w2", "t2")),
    ),
    "drain": Operation(lambda w: w.members.drain("w1", "t1"), _two),
    "leave": Operation(lambda w: w.members.leave("w1", "t1"), _two, same_answer=False),
    "move what waits": Operation(lambda w: dict(w.broker.move_waiting("dead", place)), _waiting, same_answer=False),
    "restore what was in hand": Operation(
        lambda w: dict(w.broker.restore_unacknowledged(["dead"], place)), _in_hand, same_answer=False
    ),
}


if __name__ == "__main__":
    serve(lambda client, operation, data: OPERATIONS[operation].act(World(client)))
