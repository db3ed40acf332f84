"""heimdall and ranch, each beside what happens without it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import pictures, tasks

if TYPE_CHECKING:
    from celery.result import AsyncResult

    from ..stage import Stage
    from ..trace import Run


def ten_clicks(stage: Stage) -> list[str]:
    """heimdall: the same report, asked for ten times, runs once."""
    stage.have("heavy")
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
    stage.highlight("10 → 1", "clicks on a report became one run")
    return [pictures.gantt(runs, stage.sent, "Eleven clicks, two runs")]


#: Calls of `limited_api`: three windows of the limit.
_CALLS = 3 * tasks.CALLS_PER_SECOND


def limited_api(stage: Stage) -> list[str]:
    """heimdall: calls of all workers together stay below the limit, and none is lost."""
    stage.have("heavy")
    limit = tasks.CALLS_PER_SECOND
    sent = [stage.send(tasks.call_api.delay, f"caller {number % 3 + 1}")[0] for number in range(_CALLS)]
    runs = stage.finish(sent, f"{_CALLS} calls of the API, sent at once, have all been made")
    starts = [run.start for run in runs]
    stage.promise("each was made once", len(runs) == _CALLS, f"{len(runs)} runs")
    # The workers' clock is read a moment after Redis decided, so the window is a little shorter than the limit's.
    most = pictures.most_in_window(starts, 0.7)
    stage.promise(f"never more than {limit} in a second, over all processes", most <= limit, most)
    stage.highlight(f"{most} ≤ {limit}", "calls in any second, over all processes")
    return [
        pictures.steps(
            {"calls in the last second": pictures.in_window(starts, 1.0)}, "The limit's window", limit=limit
        ),
        pictures.gantt(runs, stage.sent, "Calls of three callers"),
    ]


def fair_turns(stage: Stage) -> list[str]:
    """ranch: interactive clients do not wait behind a bulk import."""
    stage.have("heavy")
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
    most = [max(each.behind for each in waits.values()) for waits in (plain, fair)]
    stage.highlight(f"{most[0]} → {most[1]}", "tasks of a bulk import that a person waits for")
    return [
        pictures.comparison(
            [(client, plain[client].seconds, fair[client].seconds) for client in clients],
            ("plain Celery", "ranch"),
            "How long each client waited for its one task",
        ),
        pictures.gantt(plain_runs, stage.sent, "Plain Celery: first come, first served"),
        pictures.gantt(fair_runs, stage.sent, "ranch: everybody in turn"),
    ]


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
