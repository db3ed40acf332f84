"""What becomes of tasks whose worker is killed."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from measure import Chart, Table

from .stage import Contender, Stage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: Tasks that are there when a worker is killed.
TASKS = 80
#: Seconds without a sign of a task, after which those that have not ended are taken for lost. Our leases are 30 s.
SILENCE = 45.0

BODY = 'def job(number, customer=None):\n    log("start", number)\n    time.sleep(1)\n    log("end", number)\n'
LATE = "app.conf.update(task_acks_late=True, task_reject_on_worker_lost=True, task_ignore_result=True)\n"
FAIR = f"from celery_ranch import lru_task\n{LATE}@lru_task(app)\n{BODY}"
FAIR += 'submit = lambda number: job.lru_delay(f"c{number % 10}", number)\n'
KEYED = f"@app.task\n{BODY}" + 'submit = lambda number: job.delay(number, customer=f"c{number}")\n'
THEIR_ROUTER = """
from celery_chain_router import ChainRouter
app.conf.task_routes = router = ChainRouter(routing_key="customer")
for name in "ab": router.register_worker(name)
"""
OUR_ROUTER = """
from celery_chain_router import ChainRouter
app.conf.task_routes = router = ChainRouter(routing_key="customer")
if not sys.argv[0].endswith("celery/__main__.py"):
    router.attach(app)
    end = time.monotonic() + 60
    while len(router.worker_positions) < 2 and time.monotonic() < end: time.sleep(0.1)
"""
LOSSES = (
    Contender("Celery", f"app.conf.task_ignore_result = True\n@app.task\n{BODY}submit = job.delay\n"),
    Contender("Celery, late acknowledgement", f"{LATE}@app.task\n{BODY}submit = job.delay\n"),
    Contender("celery-ranch 0.1.1", FAIR, ("celery-ranch==0.1.1",)),
    Contender("celery-toolkit-ranch", FAIR),
    Contender("celery-chain-router 0.2", THEIR_ROUTER + LATE + KEYED, ("celery-chain-router==0.2.*",), queues=True),
    Contender("celery-toolkit-chain-router", OUR_ROUTER + LATE + KEYED),
)


def shown(outcomes: Sequence[tuple[int, int] | None]) -> Iterator[Table | Chart]:
    table = Table(
        f"{TASKS} tasks of a second, two workers x 2, one is killed (kill -9) after 12 of them",
        ["", f"not ended after {SILENCE:g} s of silence", "begun again"],
        "What a dead worker had fetched stays with the broker for its visibility timeout, an hour by default; what its "
        "own queue holds, until somebody starts it again.",
    )
    lost: dict[str, float | None] = {}
    for contender, found in zip(LOSSES, outcomes, strict=True):
        lost[contender.label] = found[0] if found else None
        table.add(contender.label, *(map(str, found) if found else ["not measured"] * 2))
    yield table
    yield Chart("losses", "Tasks that had not ended a while after a worker was killed", f"of {TASKS} tasks", lost)


def lose(contender: Contender) -> tuple[int, int] | None:
    with Stage(contender) as stage:
        if stage.python is None:
            return None
        stage.start("a", "b")
        with ThreadPoolExecutor(1) as pool:
            # Beside the workers: on a slow machine they would be done before the last is sent.
            sending = pool.submit(stage.run, f"for n in range({TASKS}): app.submit(n)")
            stage.wait(lambda: len(stage.events("end")) >= 12, "12 tasks")
            stage.kill("a")
            sending.result()
        quiet_since = time.monotonic()
        seen = 0
        while (ended := len({event["number"] for event in stage.events("end")})) < TASKS:
            if ended > seen:
                seen, quiet_since = ended, time.monotonic()
            if time.monotonic() - quiet_since > SILENCE:
                break
            time.sleep(0.2)
        starts = [event["number"] for event in stage.events("start")]
        return TASKS - ended, len(starts) - len(set(starts))
