"""The chapters of the tour, in order; each checks what it promises and returns its pictures."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from celery import chain

from . import pictures, tasks

if TYPE_CHECKING:
    from celery.result import AsyncResult

    from .stage import Stage
    from .trace import Run

#: The workers that share the customers, before and after one of them is killed.
RING = ("a", "b", "c")
KILLED = "b"
REMAINING = ("a", "c")


@dataclass(frozen=True, slots=True)
class Chapter:
    """One chapter: what it is called, what it promises, and what happens in it."""

    title: str
    promise: str
    play: Callable[[Stage], list[str]]


def two_queues(stage: Stage) -> list[str]:
    """A light task waits until there are workers, and runs on the right one."""
    empty = stage.queue_lengths("heavy", "light")
    stage.promise("both queues are empty", not any(empty.values()), empty)
    hello = stage.send(tasks.greet.delay, client="visitor")
    lengths = stage.queue_lengths("heavy", "light")
    stage.promise("a light task waits in its queue: no worker runs yet", lengths == {"heavy": 0, "light": 1}, lengths)
    stage.screen.say("starting a light and a heavy worker")
    stage.crew.start("light", "light", 2)
    stage.crew.start("heavy", "heavy", 2)
    runs = stage.finish(hello, "the light worker has taken it")
    stage.promise("no other worker touched it", {run.worker for run in runs} == {"light"}, _places(runs))
    return []


def heavy_then_light(stage: Stage) -> list[str]:
    """Chains cross from the heavy pool to the light one."""
    stage.wait("the heavy worker is ready", lambda: "heavy" in _ready(stage))
    # They need a while to start, and are not needed yet.
    for name in RING:
        stage.crew.start(name, "ring", 1)
    studios = [f"studio {number % 4 + 1}" for number in range(12)]
    chains = [stage.send(chain(tasks.render.s(studio), tasks.notify.s(studio))) for studio in studios]
    samples: list[tuple[float, dict[str, int]]] = []

    def bars() -> dict[str, tuple[int, int]]:
        lengths = stage.queue_lengths("heavy", "light")
        samples.append((time.monotonic(), lengths))
        return {f"queue {name}": (length, len(chains)) for name, length in lengths.items()}

    everything = [step for each in chains for step in each]
    runs = stage.finish(everything, f"{len(chains)} chains, heavy then light, have run to their ends", bars)
    on = {kind: {run.worker for run in runs if run.task.startswith(kind)} for kind in ("heavy", "light")}
    stage.promise("each step ran in the pool of its kind", on == {kind: {kind} for kind in on}, on)
    starts = {run.task_id: run.start for run in runs}
    early = [tail for tail, head in chains if starts[tail] < starts[head]]
    stage.promise("no tail before its head", not early, early)
    begin = samples[0][0]
    lengths = {name: [(at - begin, found[name]) for at, found in samples] for name in ("heavy", "light")}
    return [
        pictures.steps(lengths, "Messages that waited in each queue"),
        pictures.gantt(runs, stage.sent, "Who ran where"),
    ]


def ten_clicks(stage: Stage) -> list[str]:
    """heimdall: the same report, asked for ten times, runs once."""
    clicks = [stage.send(tasks.report.delay, "mega corp") for _ in range(10)]
    (other,) = stage.send(tasks.report.delay, "tiny ltd")
    ids = {step for click in clicks for step in click}
    stage.promise("ten clicks gave one task id", len(ids) == 1, f"{len(ids)} ids")
    stage.promise("a report for another customer is another task", other not in ids, "the same id")
    runs = stage.finish([*ids, other], "both reports are there")
    every = stage.trace.runs(lambda run: run.task == tasks.report.name)
    stage.promise("ten clicks made one run", len(every) == 2, f"{len(every)} runs of two reports")
    (again,) = stage.send(tasks.report.delay, "mega corp", seconds=0.0)
    stage.promise("once it has ended, a click starts it again", again not in ids, "the same id")
    stage.finish([again], "and it runs")
    return [pictures.gantt(runs, stage.sent, "Eleven clicks, two runs")]


def fair_turns(stage: Stage) -> list[str]:
    """ranch: interactive clients do not wait behind a bulk import."""
    plain, plain_runs = _rush(stage, tasks.export.delay)
    fair, fair_runs = _rush(stage, tasks.fair_export.lru_delay, keyed=True)
    clients = list(plain)
    seen = {client: (plain[client].behind, fair[client].behind) for client in clients}
    stage.promise(
        "with ranch nobody waited for more than 6 bulk tasks", all(after <= 6 for _, after in seen.values()), seen
    )
    stage.promise(
        "with plain Celery each of the three had the bulk before it",
        all(before > 2 * after for before, after in seen.values()),
        seen,
    )
    return [
        pictures.comparison(
            [(client, plain[client].seconds, fair[client].seconds) for client in clients],
            ("plain Celery", "ranch"),
            "How long each client waited for its one task",
        ),
        pictures.gantt(plain_runs, stage.sent, "Plain Celery: first come, first served"),
        pictures.gantt(fair_runs, stage.sent, "ranch: everybody in turn"),
    ]


def same_customer_same_worker(stage: Stage) -> list[str]:
    """chain-router: all orders of a customer run on one worker, and when that is killed on one other."""
    customers = _customers(stage, RING, each=2)

    def sent(numbers: range) -> list[str]:
        return [stage.send(tasks.order.delay, number, customer=name)[0] for number in numbers for name in customers]

    before = stage.finish(sent(range(4)), f"{4 * len(customers)} orders of {len(customers)} customers are done")
    owner = _places(before)
    stage.promise("each customer has one worker", all(len(workers) == 1 for workers in owner.values()), owner)
    stage.promise("each worker has customers", set().union(*owner.values()) == set(RING), owner)
    stage.screen.say(f"killing worker {KILLED} with orders on their way to it")
    stage.crew.kill(KILLED)
    after = stage.finish(sent(range(4, 6)), "those orders are done as well")
    places = _places(after)
    moved = {name for name in customers if places[name] != owner[name]}
    stage.promise(
        "its customers have moved, and nobody else", moved == {c for c in customers if owner[c] == {KILLED}}, places
    )
    return [
        pictures.gantt(before, stage.sent, "Customers on their workers"),
        pictures.gantt(after, stage.sent, f"Worker {KILLED} is killed: its customers move"),
    ]


def all_at_once(stage: Stage) -> list[str]:
    """One task that is heavy, unique, limited, fair, routed, and the head of a chain."""
    bulk, *others = _customers(stage, REMAINING, each=2)
    calls = [(number, bulk) for number in range(8)] + [(100 + number, name) for number, name in enumerate(others)]
    everything, clicks = [], {}
    for number, customer in calls:
        head = tasks.invoice.s(number, customer=customer).set(lru_key=customer)  # type: ignore[call-arg]  # ranch's own
        tail, first = stage.send(chain(head, tasks.notify.s(client=customer)))
        everything += [tail, first]
        (clicks[first],) = stage.send(tasks.invoice.apply_async, (number,), {"customer": customer}, lru_key=customer)
    stage.promise("a second click gave the id of the first", all(a == b for a, b in clicks.items()), clicks)
    runs = stage.finish(everything, f"{len(calls)} chains have run to their ends")
    invoices = [run for run in runs if run.task == tasks.invoice.name]
    every = stage.trace.runs(lambda run: run.task == tasks.invoice.name)
    stage.promise("heimdall: each invoice ran once", len(every) == len(calls), f"{len(every)} runs for {len(calls)}")
    # The workers' clock is read a moment after Redis decided, so the window is a little shorter than the limit's.
    most = max(count for _, count in pictures.in_window([run.start for run in every], 0.7))
    limit = tasks.INVOICES_PER_SECOND
    stage.promise(f"heimdall: never more than {limit} starts in a second", most <= limit, most)
    places = _places(invoices)
    stage.promise(
        "chain-router: each customer has one worker", all(len(workers) == 1 for workers in places.values()), places
    )
    turns = [run.client for run in invoices if places[run.client] == places[bulk]]
    last = max((turns.index(customer) for customer in others if customer in turns), default=0)
    stage.promise("ranch: the bulk customer's neighbour came early", last <= 4, turns)
    tails = {run.worker for run in runs if run.task == tasks.notify.name}
    stage.promise("presets: every tail ran in the light pool", tails == {"light"}, tails)
    return [
        pictures.gantt(runs, stage.sent, "One task with all four pieces, and its tails"),
        pictures.steps(
            {"starts in the last second": pictures.in_window([run.start for run in invoices], 1.0)},
            "The limit's window",
            limit=limit,
        ),
    ]


CHAPTERS = (
    Chapter("Two queues, two pools", "A task waits for the pool of its kind.", two_queues),
    Chapter("Heavy, then light", "Chains cross the pools; the queues drain before your eyes.", heavy_then_light),
    Chapter("heimdall: ten clicks on one report", "Ten clicks, one run, one id.", ten_clicks),
    Chapter("ranch: a bulk import beside three people", "Nobody waits for a crowd that came earlier.", fair_turns),
    Chapter(
        "chain-router: customers on their workers", "The same customer, the same worker.", same_customer_same_worker
    ),
    Chapter("All at once", "One task: heavy, unique, limited, fair, routed, and the head of a chain.", all_at_once),
)


@dataclass(frozen=True, slots=True)
class _Wait:
    """What one interactive client went through: seconds, and bulk tasks that started between."""

    seconds: float
    behind: int


def _rush(
    stage: Stage, send: Callable[..., AsyncResult[Any]], *, keyed: bool = False
) -> tuple[dict[str, _Wait], list[Run]]:
    def submit(client: str, seconds: float = 0.08) -> str:
        key = (client,) if keyed else ()
        return stage.send(send, *key, client, seconds)[0]

    # The first two keep both processes busy until everything is in line, also on a slow machine.
    sent = [submit("bulk import", 1.5) for _ in range(2)]
    sent += [submit("bulk import") for _ in range(22)]
    people = ["ann", "bob", "eve"]
    sent += [submit(client) for client in people]
    runs = stage.finish(sent, "27 exports " + ("in turn" if keyed else "first come, first served"))
    waits = {}
    for run in runs:
        if run.client in people:
            came = stage.sent[run.task_id]
            behind = sum(other.client not in people and came < other.start < run.start for other in runs)
            waits[run.client] = _Wait(stage.waited(run), behind)
    return {client: waits[client] for client in people}, runs


def _customers(stage: Stage, ring: Sequence[str], each: int) -> list[str]:
    """Customers of whom each worker of the ring has as many, once these workers and no others are on it."""
    router = stage.app.conf.task_routes[1]
    router.attach(stage.app)
    stage.wait(f"workers {', '.join(ring)} are on the ring", lambda: set(router.worker_positions) == set(ring))
    of: dict[str, list[str]] = {name: [] for name in ring}
    number = 0
    while any(len(customers) < each for customers in of.values()):
        number += 1
        customer = f"customer {number}"
        owner = of[router.get_worker_for_key(customer)]
        if len(owner) < each:
            owner.append(customer)
    return sorted(customer for customers in of.values() for customer in customers)


def _places(runs: list[Run]) -> dict[str, set[str]]:
    places: dict[str, set[str]] = {}
    for run in runs:
        places.setdefault(run.client, set()).add(run.worker)
    return places


def _ready(stage: Stage) -> set[str]:
    return {line["worker"] for line in stage.trace.lines("ready")}
