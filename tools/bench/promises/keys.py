"""How long the key of a unique task stays taken when its worker is killed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from measure import Chart, Table

from .stage import Contender, Stage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: Seconds for which a dead worker's key is asked for.
ASKING = 50.0

LONG = 'def job(number):\n    log("start", number)\n    time.sleep(600)\n'
KEYS = (
    Contender(
        "celery-heimdall 1.0",
        "from celery_heimdall import HeimdallTask\n"
        f'@app.task(base=HeimdallTask, heimdall={{"unique": True}})\n{LONG}submit = job.delay\n',
        ("celery-heimdall==1.0.*",),
    ),
    Contender(
        "celery-once",
        "from celery_once import QueueOnce\n"
        'settings = {"url": URL, "default_timeout": 3600}\n'
        'app.conf.ONCE = {"backend": "celery_once.backends.Redis", "settings": settings}\n'
        f'@app.task(base=QueueOnce, once={{"graceful": True}})\n{LONG}submit = job.delay\n',
        ("celery-once",),
    ),
    Contender(
        "celery-singleton",
        f"from celery_singleton import Singleton\n@app.task(base=Singleton)\n{LONG}submit = job.delay\n",
        ("celery-singleton",),
    ),
    Contender(
        "celery-toolkit-heimdall",
        "from celery_heimdall import HeimdallTask\n"
        f'@app.task(base=HeimdallTask, heimdall={{"unique": True}})\n{LONG}submit = job.delay\n',
    ),
)
#: Prints after how many seconds a call with the dead task's arguments is accepted.
ASK = f"""
first, killed = FIRST, KILLED
while time.time() - killed < {ASKING}:
    if app.submit(1).id not in (None, first):
        print(time.time() - killed)
        break
    time.sleep(0.5)
"""


def shown(outcomes: Sequence[float | None]) -> Iterator[Table | Chart]:
    table = Table(
        "A unique task's worker is killed: when the same call is accepted again",
        ["", "after"],
        "Each with its defaults; another worker runs on. An hour is the lifetime of the older packages' keys, but "
        "celery-singleton's have none.",
    )
    for contender, seconds in zip(KEYS, outcomes, strict=True):
        never = seconds is not None and seconds >= ASKING
        shown = f"not within {ASKING:g} s" if never else "not measured" if seconds is None else f"{seconds:.0f} s"
        table.add(contender.label, shown)
    yield table


def ask(contender: Contender) -> float | None:
    with Stage(contender) as stage:
        if stage.python is None:
            return None
        stage.start("a", concurrency=1)
        first = stage.run("print(app.submit(1).id)").strip()
        stage.wait(lambda: bool(stage.events("start")), "the task to start")
        stage.start("b", concurrency=1)
        killed = time.time()
        stage.kill("a")
        shown = stage.run(ASK.replace("FIRST", repr(first)).replace("KILLED", repr(killed)))
        return float(shown) if shown else ASKING
