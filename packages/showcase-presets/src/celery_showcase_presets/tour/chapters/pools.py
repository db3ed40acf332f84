"""The first chapters: a task that waits, a chain over both pools, and many of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from celery import chain

from .. import pictures, tasks
from ..stage import places

if TYPE_CHECKING:
    from ..stage import Stage


def two_queues(stage: Stage) -> list[str]:
    """A light task waits until there are workers, and runs on the right one."""
    empty = stage.queue_lengths("heavy", "light")
    stage.promise("both queues are empty", not any(empty.values()), empty)
    hello = stage.send(tasks.greet.delay, client="visitor")
    lengths = stage.queue_lengths("heavy", "light")
    stage.promise("a light task waits in its queue: no worker runs yet", lengths == {"heavy": 0, "light": 1}, lengths)
    stage.screen.say("starting a light and a heavy worker")
    stage.crew.start("light", "heavy")
    runs = stage.finish(hello, "the light worker has taken it")
    stage.promise("no other worker touched it", {run.worker for run in runs} == {"light"}, places(runs))
    return []


def heavy_then_light(stage: Stage) -> list[str]:
    """The result of a heavy task goes to a light one, from one pool to the other."""
    stage.have("light", "heavy")
    # They need a while to start, and are not needed yet.
    stage.crew.start("a", "b", "c")
    steps = stage.send(chain(tasks.render.s("visitor", stage.plan.delay), tasks.notify.s("visitor")))
    runs = stage.finish(steps, "a film is rendered, then announced")
    order = [(run.task, run.worker) for run in runs]
    stage.promise(
        "heavy first, in its pool, then light in the other",
        order == [(tasks.render.name, "heavy"), (tasks.notify.name, "light")],
        order,
    )
    return [pictures.gantt(runs, stage.sent, "One chain")]


def many_chains(stage: Stage) -> list[str]:
    """Chains cross from the heavy pool to the light one, and the queues show it."""
    stage.have("light", "heavy")
    studios = [f"studio {number % 4 + 1}" for number in range(stage.plan.loop)]
    chains = [stage.send(chain(tasks.render.s(studio, stage.plan.delay), tasks.notify.s(studio))) for studio in studios]
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
    left = stage.queue_lengths("heavy", "light")
    stage.promise("both queues are empty again", not any(left.values()), left)
    begin = samples[0][0]
    lengths = {name: [(at - begin, found[name]) for at, found in samples] for name in ("heavy", "light")}
    return [
        pictures.steps(lengths, "Messages that waited in each queue"),
        pictures.gantt(runs, stage.sent, "Who ran where"),
    ]
