"""The bench of core: what each Redis operation costs; its hash ring is in `ring`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from measure import Operation, Table, judged, ratios, round_trips, server_microseconds, side_by_side

from celery_toolkit_core.canonical import bound_arguments, call_digest
from celery_toolkit_core.connection import connect
from celery_toolkit_core.deadletters import DeadLetter, DeadLetters
from celery_toolkit_core.delayed import Delayed
from celery_toolkit_core.keys import KeySpace
from celery_toolkit_core.leases import Leases
from celery_toolkit_core.limits import Concurrency, Limiter, RateLimit
from celery_toolkit_core.local_server import LocalServer
from celery_toolkit_testkit import TcpProxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROUNDS = 300
#: From `core.md`: one EVALSHA per operation, at most so many times a PING of the same connection.
MOST_TRIPS = 1
MOST_RATIO = 1.4
OTHER_KEYS = 100_000


def tables() -> Iterator[Table]:
    """All tables of core."""
    with LocalServer() as server:
        yield _operations(server.url)
        yield _growth(server.url)
    yield _canonical()


def _operations(url: str) -> Table:
    table = Table(
        "core: Redis operations",
        ["operation", "round trips", "target", "x PING", "target", "on the server"],
        "Round trips are counted on the wire by a proxy. Times: medians of calls made in turn with a PING of the same "
        "client over the loopback, where the way itself costs next to nothing.",
    )
    with TcpProxy(url) as proxy:
        trips = {each.name: round_trips(proxy, each) for each in _core_operations(_client(proxy.url))}
    client = _client(url)
    client.flushall()
    operations = _core_operations(client)
    factors = ratios(lambda _: client.ping(), operations, rounds=ROUNDS)
    client.flushall()
    for operation in _core_operations(client):
        name = operation.name
        work = f"{server_microseconds(client, operation):.0f} us"
        table.add(f"`{name}`", *judged(trips[name], MOST_TRIPS, "{:g}"), *judged(factors[name], MOST_RATIO), work)
    return table


def _client(url: str) -> Any:
    return connect(url, timeout=30.0)


def _core_operations(client: Any) -> list[Operation]:
    keys = KeySpace("bench")
    leases, limiter = Leases(client, keys), Limiter(client, keys)
    three = Leases(client, keys, permits=3)
    rate = RateLimit((10**6, 60.0), name="rate").demand()
    other_rate = RateLimit((10**6, 60.0), name="other rate").demand()
    slots = Concurrency(10**6, name="slots").demand()
    full = RateLimit((1, 3600.0), name="full").demand()
    limiter.take([full], token="first")
    delayed, letters = Delayed(client, keys), DeadLetters(client, keys)
    stamps: dict[int, int] = {}
    letter = DeadLetter("id", "shop.order", "ValueError", b"x" * 500, {"traceback": "y" * 500})

    def settle(number: int) -> None:
        limiter.settle([rate], stamp=stamps[number])

    def taken(number: int) -> None:
        stamps[number] = limiter.take([rate], token=f"settled {number}").stamp

    return [
        Operation("Leases.acquire", lambda n: leases.acquire(f"a{n}", "t")),
        Operation("Leases.acquire, one of three permits", lambda n: three.acquire(f"n{n}", "t")),
        Operation(
            "Leases.acquire, held by another", lambda n: leases.acquire("h", "t"), lambda n: leases.acquire("h", "o")
        ),
        Operation("Leases.renew", lambda n: leases.renew(f"r{n}", "t"), lambda n: leases.acquire(f"r{n}", "t")),
        Operation("Leases.release", lambda n: leases.release(f"f{n}", "t"), lambda n: leases.acquire(f"f{n}", "t")),
        Operation("Leases.inspect", lambda n: leases.inspect(f"i{n}"), lambda n: leases.acquire(f"i{n}", "t")),
        Operation("Limiter.take, rate", lambda n: limiter.take([rate], token=f"a{n}")),
        Operation("Limiter.take, slots", lambda n: limiter.take([slots], token=f"b{n}")),
        Operation(
            "Limiter.take, two rates and slots", lambda n: limiter.take([rate, other_rate, slots], token=f"c{n}")
        ),
        Operation("Limiter.take, refused", lambda n: limiter.take([full], token=f"d{n}")),
        Operation(
            "Limiter.release",
            lambda n: limiter.release([slots], token=f"e{n}"),
            lambda n: limiter.take([slots], token=f"e{n}"),
        ),
        Operation(
            "Limiter.renew",
            lambda n: limiter.renew([slots], token=f"f{n}"),
            lambda n: limiter.take([slots], token=f"f{n}"),
        ),
        Operation("Limiter.settle", settle, taken),
        Operation("Limiter.peek", lambda n: limiter.peek([rate])),
        Operation("Delayed.put", lambda n: delayed.put(f"p{n}", b"x" * 500)),
        Operation("Delayed.take", lambda n: delayed.take(token=f"t{n}"), lambda n: delayed.put(f"t{n}", b"x" * 500)),
        Operation(
            "Delayed.confirm",
            lambda n: delayed.confirm(f"c{n}", [f"c{n}"]),
            lambda n: (delayed.put(f"c{n}", b"x" * 500, order=-1), delayed.take(token=f"c{n}")),
        ),
        Operation("DeadLetters.put", lambda n: letters.put(letter)),
        Operation("DeadLetters.take_oldest", lambda n: letters.take_oldest(1), lambda n: letters.put(letter)),
        Operation("DeadLetters.page of one", lambda n: letters.page(count=1)),
    ]


def _growth(url: str) -> Table:
    table = Table("core: growth", ["what", "figure", "target"])
    client = _client(url)
    client.flushall()
    keys = KeySpace("bench")
    limiter = Limiter(client, keys)
    starts = 10_000
    window = RateLimit((10**6, 3600.0), name="window").demand()
    for number in range(starts):
        limiter.take([window], token=str(number))
    size = client.memory_usage(window.keys(keys)[0], samples=0)
    table.add("sliding window, bytes per remembered start", *judged(size / starts, 20.0, "{:.1f}"))
    crowded = _client(url.removesuffix("/0") + "/1")
    pipeline = crowded.pipeline(transaction=False)
    for number in range(OTHER_KEYS):
        pipeline.set(keys.key("other", str(number)), b"x")
    pipeline.execute()
    for name, call in _two_calls(client).items():
        among_others = Operation(name, _two_calls(crowded)[name])
        growth = ratios(call, [among_others], rounds=1000)[name]
        table.add(f"`{name}` among {OTHER_KEYS:,} other keys, ratio to none", *judged(growth, 1.1))
    return table


def _two_calls(client: Any) -> dict[str, Callable[[int], Any]]:
    leases, limiter = Leases(client, KeySpace("bench")), Limiter(client, KeySpace("bench"))
    return {
        "Leases.acquire": lambda n: leases.acquire(f"a{n}", "t"),
        "Limiter.take": lambda n: limiter.take([RateLimit("60/m", name=f"l{n}").demand()], token="t"),
    }


def _canonical() -> Table:
    table = Table("core: call keys", ["what", "figure"])

    def order(customer: int, amount: float = 1.0, *, tags: tuple[str, ...] = ()) -> None:
        """A call as tasks have them."""

    spans = side_by_side(
        {
            "bound_arguments": lambda: bound_arguments(order, (7,), {"tags": ["a", "b"]}),
            "call_digest": lambda: call_digest("shop.order", {"customer": 7, "amount": 1.0, "tags": ["a", "b"]}),
        },
        rounds=2000,
    )
    for name, span in spans.items():
        table.add(f"`{name}` of a call with three arguments", f"{span / 1000:.1f} us")
    return table
