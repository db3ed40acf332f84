"""chain-router, alone and with everything else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from celery import chain

from celery_toolkit_core.canonical import key_bytes

from .. import pictures, tasks
from ..stage import places

if TYPE_CHECKING:
    from ..stage import Stage

#: The workers that share the customers, before and after one of them is killed.
RING = ("a", "b", "c")
KILLED = "b"
REMAINING = ("a", "c")


def same_customer_same_worker(stage: Stage) -> list[str]:
    """chain-router: all orders of a customer run on one worker, and when that is killed on one other."""
    stage.have(*RING)
    customers = _customers(stage, RING, each=2)

    def sent(numbers: range) -> list[str]:
        return [stage.send(tasks.order.delay, number, customer=name)[0] for number in numbers for name in customers]

    before = stage.finish(sent(range(4)), f"{4 * len(customers)} orders of {len(customers)} customers are done")
    owner = places(before)
    stage.promise("each customer has one worker", all(len(workers) == 1 for workers in owner.values()), owner)
    stage.promise("each worker has customers", set().union(*owner.values()) == set(RING), owner)
    full = _positions(stage)
    stage.screen.say(f"killing worker {KILLED} with orders on their way to it")
    stage.crew.kill(KILLED)
    after = stage.finish(sent(range(4, 6)), "those orders are done as well")
    now = places(after)
    moved = {name for name in customers if now[name] != owner[name]}
    stage.promise(
        "its customers have moved, and nobody else", moved == {c for c in customers if owner[c] == {KILLED}}, now
    )
    _joined(stage, REMAINING)
    stage.highlight(f"{len(moved)} of {len(customers)}", "customers moved when one of three workers was killed")
    return [
        pictures.rings(
            {
                "three workers": (full, _keys(stage, owner)),
                f"{KILLED} is killed": (_positions(stage), _keys(stage, now)),
            },
            "The ring: each customer belongs to the next worker clockwise",
        ),
        pictures.gantt(before, stage.sent, "Customers on their workers"),
        pictures.gantt(after, stage.sent, f"Worker {KILLED} is killed: its customers move"),
    ]


def all_at_once(stage: Stage) -> list[str]:
    """One task that is heavy, unique, limited, fair, routed, and the head of a chain."""
    stage.have("light", *REMAINING)
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
    # Shorter than the limit's window for the reason that `limited_api` gives.
    most = pictures.most_in_window([run.start for run in every], 0.7)
    limit = tasks.INVOICES_PER_SECOND
    stage.promise(f"heimdall: never more than {limit} starts in a second", most <= limit, most)
    where = places(invoices)
    stage.promise(
        "chain-router: each customer has one worker", all(len(workers) == 1 for workers in where.values()), where
    )
    # Bulk invoices that began after a neighbour's had been sent and before it began.
    behind = {
        run.client: sum(
            other.client == bulk
            and where[bulk] == where[run.client]
            and stage.sent[run.task_id] < other.start < run.start
            for other in invoices
        )
        for run in invoices
        if run.client != bulk
    }
    stage.promise("ranch: the bulk customer's neighbour came early", max(behind.values()) <= 4, behind)
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


def _router(stage: Stage) -> Any:
    router = stage.app.conf.task_routes[1]
    router.attach(stage.app)
    return router


def _joined(stage: Stage, ring: Sequence[str]) -> None:
    router = _router(stage)
    stage.wait(f"workers {', '.join(ring)} are on the ring", lambda: set(router.worker_positions) == set(ring))


def _customers(stage: Stage, ring: Sequence[str], each: int) -> list[str]:
    """Customers of whom each worker of the ring has as many, once these workers and no others are on it."""
    _joined(stage, ring)
    router = _router(stage)
    of: dict[str, list[str]] = {name: [] for name in ring}
    number = 0
    while any(len(customers) < each for customers in of.values()):
        number += 1
        customer = f"customer {number}"
        owner = of[router.get_worker_for_key(customer)]
        if len(owner) < each:
            owner.append(customer)
    return sorted(customer for customers in of.values() for customer in customers)


def _positions(stage: Stage) -> dict[str, list[int]]:
    return {name: list(found) for name, found in _router(stage).worker_positions.items()}


def _keys(stage: Stage, owner: dict[str, set[str]]) -> dict[str, tuple[int, str]]:
    place = _router(stage).hash_function
    return {customer: (place(key_bytes(customer)), next(iter(workers))) for customer, workers in owner.items()}
