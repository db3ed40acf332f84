"""How long a small client waits behind a big one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from measure import Chart, Table

from .stage import Contender, Stage

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Tasks of the client that came first.
BULK = 200

PLACES = (
    Contender(
        "Celery",
        'app.conf.task_ignore_result = True\n@app.task\ndef job(number): log("start", number)\n'
        "submit = lambda client, number: job.delay(number)\n",
    ),
    *(
        Contender(
            label,
            "from celery_ranch import lru_task\napp.conf.task_ignore_result = True\n@lru_task(app)\n"
            'def job(number): log("start", number)\nsubmit = job.lru_delay\n',
            packages,
        )
        for label, packages in (("celery-ranch 0.1.1", ("celery-ranch==0.1.1",)), ("celery-toolkit-ranch", ()))
    ),
)


def shown() -> Iterator[Table | Chart]:
    with ThreadPoolExecutor() as pool:
        found = dict(zip([each.label for each in PLACES], pool.map(_place, PLACES), strict=True))
    title = f"Place of a client's only task behind {BULK} of another's"
    yield Chart("place", title, "place in the order of starts", found, "One worker x 1, started when all are waiting.")


def _place(contender: Contender) -> float | None:
    with Stage(contender) as stage:
        if stage.python is None:
            return None
        stage.run(f'for n in range({BULK}): app.submit("bulk", n)\napp.submit("small", -1)')
        stage.start("a", concurrency=1)
        stage.wait(lambda: any(event["number"] == -1 for event in stage.events("start")), "the small task", 240.0)
        return 1.0 + [event["number"] for event in stage.events("start")].index(-1)
