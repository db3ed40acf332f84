"""The pieces together, on real workers: what each promises alone it keeps beside the others."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter

import pytest
from celery import chain, chord, group

from celery_heimdall.declarations import declared_limits
from celery_ranch import audit
from celery_ranch.application import Address, ranch_of
from celery_ranch.ticket_office import TICKET
from celery_toolkit_core.limits import Limiter
from celery_toolkit_testkit import eventually

PATIENCE = 120


_rabbitmq = pytest.param("rabbitmq", marks=[pytest.mark.rabbitmq, pytest.mark.xdist_group("rabbitmq")])
on_both_brokers = pytest.mark.parametrize("broker", ["redis", _rabbitmq], indirect=True)


@pytest.fixture
def broker(request, celery_environment, redis_url, monkeypatch):
    """What carries the messages; our state and the results are on Redis either way."""
    kind = getattr(request, "param", "redis")
    if kind == "rabbitmq":
        monkeypatch.setenv("CELERY_BROKER_URL", request.getfixturevalue("rabbitmq_url"))
    return kind


@pytest.fixture
def app(broker, celery_app_module):
    """A publisher of this test."""
    app = celery_app_module("composed_app").make("publisher")
    app.set_current()
    app.loader.import_default_modules()
    yield app
    app.close()


@pytest.fixture
def worker(celery_worker_process):
    def start(role, name=None, **options):
        name = name or role
        env = {"ROLE": role}
        if role.endswith("ring"):
            env["CHAIN_ROUTER_SLOT"] = name
            options["arguments"] = ["-X", "light" if role == "light-ring" else "heavy"]
        return celery_worker_process("composed_app", name=name, env=env, wait=False, **options)

    return start


@pytest.fixture
def ring(app, worker):
    """Starts workers that share the customers, and waits until this publisher knows them."""

    def start(*names, role="ring"):
        router = app.conf.task_routes[1]
        router.attach(app)
        workers = {name: worker(role, name, concurrency=1) for name in names}
        eventually(lambda: set(router.worker_positions) == set(names), PATIENCE, f"the ring to be {names}")
        return workers, router

    return start


def customers_of(router, name, count):
    """Customers whose tasks go to one worker."""
    found = (f"customer {number}" for number in range(10_000))
    mine = (customer for customer in found if router.get_worker_for_key(customer) == name)
    return [next(mine) for _ in range(count)]


def get_all(results):
    return [result.get(timeout=PATIENCE) for result in results]


def settled(app, expected):
    """ranch's books: all done, nothing waiting, nothing in flight, nothing lost."""

    def even():
        seen = audit(app)
        assert seen["done"] == expected
        assert not seen["missing"]
        assert not seen["in_flight"]
        return True

    eventually(even, PATIENCE, "the backlog's books are even")


def most_in_window(times, length):
    times = sorted(times)
    return max(sum(start <= at < start + length for at in times) for start in times)


@on_both_brokers
def test_one_task_is_heavy_unique_limited_fair_routed_and_the_head_of_a_chain(app, worker, ring, event_log):
    worker("light")
    _, router = ring("a", "b")
    everything, tail = app.tasks["ring.everything"], app.tasks["tail"]
    bulk, *others = customers_of(router, "a", 3)
    others += customers_of(router, "b", 2)
    calls = [(number, bulk) for number in range(8)] + [(100, customer) for customer in others]
    ends, second_clicks = [], []
    for number, customer in calls:
        head = everything.s(number, customer=customer).set(lru_key=customer)
        ends.append(chain(head, tail.s(customer=customer))())
        second_clicks.append(everything.apply_async((number,), {"customer": customer}, lru_key=customer))
    # unique
    assert [click.id for click in second_clicks] == [end.parent.id for end in ends]
    assert get_all(ends) == [f"{customer} {number} done" for number, customer in calls]
    starts = event_log.events(what="start", task="ring.everything")
    assert Counter(tuple(event["name"]) for event in starts) == Counter(calls)
    # routed
    assert all(event["worker"] == router.get_worker_for_key(event["name"][1]) for event in starts)
    # limited: the body's clock is read a moment after Redis decided
    assert most_in_window([event["at"] for event in starts], 0.8) <= 5
    # fair: of eight tasks of the bulk customer at most the first few are before the others'
    at_a = [event["name"][1] for event in starts if event["worker"] == "a"]
    assert max(at_a.index(customer) for customer in others[:2]) <= 5
    # heavy, in a chain: the tails ran in the other pool
    assert {event["worker"] for event in event_log.events(what="start", task="tail")} == {"light"}
    settled(app, len(calls))


@pytest.mark.parametrize(
    ("broker", "role", "name"),
    [
        ("redis", "ring", "ring.everything"),
        pytest.param("rabbitmq", "light-ring", "ring.light_everything", marks=_rabbitmq.marks),
    ],
    indirect=["broker"],
)
def test_a_chord_and_a_group_of_tasks_with_all_four_pieces_that_fail_once(app, worker, ring, event_log, role, name):
    """On either preset; the group is a second click, while the chord's header runs: it shares the results."""
    worker("light")
    _, router = ring("a", "b", role=role)
    task = app.tasks[name]
    calls = [(number, customer) for customer in ("ann", "bob") for number in range(3)]

    def header():
        signatures = (task.s(number, customer=customer, failures=1, seconds=0.5) for number, customer in calls)
        return group(each.set(lru_key=each.kwargs["customer"]) for each in signatures)

    ended, again = chord(header(), app.tasks["tail"].s(customer="eve"))(), header()()
    expected = [f"{customer} {number}" for number, customer in calls]
    assert ended.get(timeout=PATIENCE) == f"{expected} done"
    assert again.get(timeout=PATIENCE) == expected
    starts = event_log.events(what="start", task=name)
    assert Counter((*event["name"], event["retries"]) for event in starts) == Counter(
        (*call, attempt) for call in calls for attempt in (0, 1)
    )
    assert all(event["worker"] == router.get_worker_for_key(event["name"][1]) for event in starts)
    assert most_in_window([event["at"] for event in starts], 0.8) <= 5
    seen = eventually(lambda: (books := audit(app)) and not books["in_flight"] and books, PATIENCE)
    assert not seen["missing"]


def test_the_controls_act_in_their_order(monkeypatch, celery_environment, worker, redis_client, request):
    """Unique, then the queue, then the backlog of that queue: all before a worker is there; the limit in the worker."""
    monkeypatch.setenv("ROUTER_MODE", "partition")
    app = request.getfixturevalue("app")
    task = app.tasks["ring.everything"]
    limiter = Limiter(task.heimdall_store.client, task.heimdall_store.space)
    (limit,) = [each.demand() for each in declared_limits(app) if each.name == task.name]
    clicks = [task.apply_async((1,), {"customer": "ann"}, lru_key="ann") for _ in range(3)]
    assert len({click.id for click in clicks}) == 1
    queue = app.conf.task_routes[1].route_task(task.name, (1,), {"customer": "ann"})["queue"]
    waiting = ranch_of(app).backlog.queues().values()
    assert {Address.from_bytes(each.address).name(app) for each in waiting} == {queue}
    (ticket,) = redis_client.lrange(queue, 0, -1)
    assert json.loads(ticket)["headers"]["task"] == TICKET
    assert limiter.peek([limit])[0].used == 0
    worker("ring", "a", concurrency=1)
    assert clicks[0].get(timeout=PATIENCE) == "ann 1"
    assert limiter.peek([limit])[0].used == 1
    settled(app, 1)


def test_a_unique_task_that_waits_for_its_limit_takes_no_second_click(app, worker, event_log):
    task = app.tasks["unique_limited"]
    worker("light", concurrency=2)
    calls = [task.delay(number) for number in range(5)]
    event_log.wait_for(2, PATIENCE, what="start")
    assert task.delay(4).id == calls[4].id
    assert get_all(calls) == list(range(5))
    starts = event_log.events(what="start")
    assert Counter(event["name"] for event in starts) == Counter(range(5))
    assert most_in_window([event["at"] for event in starts], 1.6) <= 2


@on_both_brokers
def test_a_limited_task_comes_back_to_its_customers_worker(app, ring, event_log):
    _, router = ring("a", "b")
    task = app.tasks["ring.limited"]
    calls = [(number, customer) for number in range(3) for customer in ("ann", "bob", "eve")][:7]
    assert get_all([task.delay(number, customer=customer) for number, customer in calls]) == [n for n, _ in calls]
    starts = event_log.events(what="start")
    assert Counter(tuple(event["name"]) for event in starts) == Counter(calls)
    assert all(event["worker"] == router.get_worker_for_key(event["name"][1]) for event in starts)
    assert most_in_window([event["at"] for event in starts], 1.6) <= 2


def test_duplicates_do_not_reach_the_backlog(app, worker):
    """Unique comes before the backlog: what is refused there never waits for a turn."""
    task = app.tasks["unique_fair"]
    clicks = [task.lru_delay("eve", "report") for _ in range(10)]
    assert len({click.id for click in clicks}) == 1
    assert audit(app)["waiting"] == 1
    assert task.get_client_metadata("eve")["pending_tasks"] == 1
    worker("light")
    assert clicks[-1].get(timeout=PATIENCE) == "report"
    settled(app, 1)


@on_both_brokers
def test_a_fair_task_that_is_unique_waits_its_turn_and_frees_its_key(app, worker, event_log):
    task = app.tasks["unique_fair"]
    bulk = [task.lru_delay("bulk", f"b{number}", seconds=0.05) for number in range(10)]
    late = task.lru_delay("eve", "e")
    worker("light", concurrency=1)
    get_all([*bulk, late])
    order = [event["name"] for event in event_log.events(what="start")]
    assert order.index("e") <= 2
    again = eventually(
        lambda: (result := task.lru_delay("eve", "e")) and result.id != late.id and result, PATIENCE, "a free key"
    )
    again.get(timeout=PATIENCE)


@on_both_brokers
def test_a_limited_task_gives_its_turn_back_while_it_waits(app, worker, event_log):
    """A parked task holds no place: its client's other task, and other clients, go on at once."""
    limited, plain = app.tasks["limited_fair"], app.tasks["plain_fair"]
    worker("light", concurrency=1)
    parked = [limited.lru_delay("ann", f"l{number}") for number in range(6)]
    event_log.wait_for(2, PATIENCE, task="limited_fair", what="start")
    quick = [plain.lru_delay("ann", "p-ann"), plain.lru_delay("bob", "p-bob")]
    get_all(quick)
    assert len(event_log.events(task="limited_fair", what="start")) <= 4, "the plain ones waited for the limit"
    assert sorted(get_all(parked)) == [f"l{number}" for number in range(6)]
    starts = event_log.events(task="limited_fair", what="start")
    assert [event["name"] for event in starts] == [f"l{number}" for number in range(6)], "one client's order"
    assert {event["retries"] for event in starts} == {0}
    assert most_in_window([event["at"] for event in starts], 1.6) <= 2
    seen = eventually(lambda: (books := audit(app)) and not books["in_flight"] and books, PATIENCE)
    assert not seen["missing"]


@on_both_brokers
def test_a_heavy_task_keeps_its_lock_over_four_attempts_and_then_frees_it(app, worker, event_log):
    task = app.tasks["unique_heavy"]
    worker("heavy")
    first = task.delay("doomed")
    event_log.wait_for(2, PATIENCE, what="start")
    assert task.delay("doomed").id == first.id
    with pytest.raises(ConnectionError):
        first.get(timeout=PATIENCE)
    assert [event["retries"] for event in event_log.events(what="start")] == [0, 1, 2, 3]
    second = eventually(lambda: (again := task.delay("doomed")).id != first.id and again, PATIENCE, "a free key")
    with pytest.raises(ConnectionError):
        second.get(timeout=PATIENCE)


@on_both_brokers
def test_a_fair_heavy_task_is_retried_through_its_clients_backlog(app, worker, event_log):
    task = app.tasks["fair_heavy"]
    worker("heavy", concurrency=1)
    stumbling = task.lru_delay("ann", "s", failures=3)
    others = [task.lru_delay("bob", f"o{number}") for number in range(5)]
    assert stumbling.get(timeout=PATIENCE) == "s"
    get_all(others)
    attempts = [event["retries"] for event in event_log.events(what="start", name="s")]
    assert attempts == [0, 1, 2, 3]
    seen = eventually(lambda: (books := audit(app)) and not books["in_flight"] and books, PATIENCE)
    assert not seen["missing"]


@on_both_brokers
def test_a_routed_heavy_task_is_retried_on_its_customers_worker(app, ring, event_log):
    _, router = ring("a", "b")
    customers = customers_of(router, "a", 2) + customers_of(router, "b", 2)
    task = app.tasks["ring.stumbling"]
    assert get_all([task.delay(customer=customer, failures=2) for customer in customers]) == customers
    starts = event_log.events(what="start")
    assert len(starts) == 3 * len(customers)
    assert all(event["worker"] == router.get_worker_for_key(event["name"]) for event in starts)


@on_both_brokers
def test_a_routed_unique_task_is_taken_over_with_its_lock_when_its_worker_is_killed(app, ring, event_log):
    workers, router = ring("a", "b")
    (customer,) = customers_of(router, "a", 1)
    task = app.tasks["ring.unique"]
    running = task.delay(1, customer=customer, seconds=1.0)
    waiting = [task.delay(number, customer=customer) for number in (2, 3, 4)]
    event_log.wait_for(1, PATIENCE, what="start", worker="a")
    kill(workers["a"])
    assert task.delay(2, customer=customer).id == waiting[0].id
    assert get_all(waiting) == [customer] * 3
    moved = [event for event in event_log.events(what="start") if event["worker"] == "b"]
    assert {event["name"][0] for event in moved} >= {2, 3, 4}
    # A key that died with its worker is free again after its lease and a sweep.
    eventually(lambda: task.delay(1, customer=customer).id != running.id, PATIENCE, "the dead task's key is free")


@on_both_brokers
def test_a_routed_fair_backlog_is_worked_off_by_others_when_its_worker_is_killed(app, ring, event_log):
    workers, router = ring("a", "b")
    (customer,) = customers_of(router, "a", 1)
    task = app.tasks["ring.fair"]
    calls = [
        task.apply_async((number,), {"customer": customer, "seconds": 0.2}, lru_key=f"client {number % 3}")
        for number in range(12)
    ]
    event_log.wait_for(2, PATIENCE, what="end", worker="a")
    kill(workers["a"])
    assert get_all(calls) == [customer] * 12
    assert {event["name"][0] for event in event_log.events(what="end")} == set(range(12))
    assert len(event_log.events(what="start")) <= 12 + 1, "only what was in flight ran again"


@on_both_brokers
def test_tasks_with_all_four_pieces_survive_the_kill_of_their_worker(app, worker, ring, event_log):
    """Some run, some are parked by the limit, some wait for their turn: each of them ends, and none runs twice more."""
    worker("light")
    workers, router = ring("a", "b")
    customers = customers_of(router, "a", 3)
    task, tail = app.tasks["ring.everything"], app.tasks["tail"]
    calls = [(number, customer) for number in range(5) for customer in customers]
    ends = [
        chain(task.s(number, customer=customer).set(lru_key=customer), tail.s(customer=customer))()
        for number, customer in calls
    ]
    event_log.wait_for(3, PATIENCE, what="end", task="ring.everything", worker="a")
    kill(workers["a"])
    assert get_all(ends) == [f"{customer} {number} done" for number, customer in calls]
    starts = event_log.events(what="start", task="ring.everything")
    assert {tuple(event["name"]) for event in starts} == set(calls)
    assert len(starts) <= len(calls) + 1, "only what was in flight ran again"
    assert most_in_window([event["at"] for event in starts], 0.8) <= 5
    seen = eventually(lambda: (books := audit(app)) and not books["in_flight"] and books, PATIENCE)
    assert not seen["missing"]


def test_tasks_with_all_four_pieces_survive_the_kill_of_their_partitions_owner(
    monkeypatch, celery_environment, worker, event_log, request
):
    """The same over fixed partitions: tickets, parked tasks and locks go to the heir."""
    monkeypatch.setenv("ROUTER_MODE", "partition")
    app = request.getfixturevalue("app")
    worker("light")
    workers = {name: worker("ring", name, concurrency=1) for name in ("a", "b")}
    for each in workers.values():
        each.wait_ready()
    customers = [f"customer {number}" for number in range(4)]
    task, tail = app.tasks["ring.everything"], app.tasks["tail"]
    calls = [(number, customer) for number in range(5) for customer in customers]
    ends = [
        chain(task.s(number, customer=customer).set(lru_key=customer), tail.s(customer=customer))()
        for number, customer in calls
    ]
    event_log.wait_for(3, PATIENCE, what="end", task="ring.everything")
    victim = event_log.events(what="end", task="ring.everything")[-1]["worker"]
    kill(workers[victim])
    assert get_all(ends) == [f"{customer} {number} done" for number, customer in calls]
    starts = event_log.events(what="start", task="ring.everything")
    assert {tuple(event["name"]) for event in starts} == set(calls)
    assert len(starts) <= len(calls) + 1, "only what was in flight ran again"
    assert most_in_window([event["at"] for event in starts], 0.8) <= 5


@on_both_brokers
def test_duplicates_in_a_chord_of_fair_unique_tasks_do_not_hang(app, worker):
    task = app.tasks["unique_fair"]
    worker("light")
    header = group(task.s("same", seconds=0.2).set(lru_key=f"client {number}") for number in range(3))
    result = chord(header, app.tasks["tail"].s(customer="eve"))()
    assert result.get(timeout=PATIENCE) == "['same', 'same', 'same'] done"


def kill(process):
    for pid in (process.pid, *process.child_pids()):
        os.kill(pid, signal.SIGKILL)
