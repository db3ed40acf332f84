"""What a chapter of the tour works with: the application, the workers, the trace, and promises that are checked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING, Any

from celery import states

from ..depths import Depths
from ..errors import EffectMissing
from .plan import Plan

if TYPE_CHECKING:
    from celery import Celery
    from celery.result import AsyncResult

    from .rabbit import Management
    from .screen import Plain
    from .trace import Run, Trace
    from .workers import Crew

#: Seconds until a promise counts as broken; on a very slow machine all of it may be needed.
PATIENCE = 60.0
_POLL = 0.05  # seconds


@dataclass
class Stage:
    """One chapter's view of the tour.

    Attributes:
        kept: The promises of this chapter that came true.
        interrupted: Set when the visitor has had enough.
        sent: Task id -> when it was sent, by the clock of the trace.
        management: RabbitMQ's management API, where RabbitMQ carries the messages.
        highlights: Figures for the head of the page, each with what it means.
    """

    app: Celery
    crew: Crew
    trace: Trace
    screen: Plain
    plan: Plan = field(default_factory=Plan)
    interrupted: Event = field(default_factory=Event)
    patience: float = PATIENCE
    kept: list[str] = field(default_factory=list)
    sent: dict[str, float] = field(default_factory=dict)
    highlights: list[tuple[str, str]] = field(default_factory=list)
    management: Management | None = None
    _depths: Depths = field(init=False)

    def __post_init__(self) -> None:
        self._depths = Depths(self.app)

    def highlight(self, figure: str, meaning: str) -> None:
        """A figure for the head of the page."""
        self.highlights.append((figure, meaning))

    def have(self, *names: str) -> None:
        """Start those of these workers that no chapter before has started, and wait until all are ready.

        Raises:
            EffectMissing: One of them does not come.
        """
        self.crew.start(*names)
        if not self._ready(names):
            self.wait(f"{_listed(names)} ready", lambda: self._ready(names))

    def send(self, send: Callable[..., AsyncResult[Any]], *args: Any, **kwargs: Any) -> tuple[str, ...]:
        """Call ``task.delay`` or the like and note when; the ids of the task, or of a chain's tasks, the last first.

        No result object is kept: it would want to say goodbye to the server, which may have gone before it.
        """
        now = time.monotonic()
        result: Any = send(*args, **kwargs)
        ids = []
        while result is not None:
            ids.append(str(result.id))
            self.sent.setdefault(result.id, now)
            result = result.parent
        return tuple(ids)

    def promise(self, promise: str, kept: bool, seen: object) -> None:
        """Check a promise now.

        Raises:
            EffectMissing: It does not hold; `seen` tells what is there instead.
            KeyboardInterrupt: The visitor has had enough.
        """
        if self.interrupted.is_set():
            raise KeyboardInterrupt
        if not kept:
            self.screen.broken(promise, str(seen))
            raise EffectMissing(f"{promise}: {seen}", promise=promise, seen=str(seen))
        self.kept.append(promise)
        self.screen.kept(promise)

    def wait(
        self,
        promise: str,
        done: Callable[[], bool],
        bars: Callable[[], Mapping[str, tuple[int, int]]] | None = None,
    ) -> None:
        """Check a promise until it holds; `bars` are what is shown meanwhile.

        Raises:
            EffectMissing: It does not hold in time, or a worker has ended.
        """
        end = time.monotonic() + self.patience
        with self.screen.moving() as show:
            while not done():
                if self.interrupted.is_set():
                    raise KeyboardInterrupt
                if (fallen := self.crew.fallen()) is not None:
                    self.promise(promise, False, f"worker {fallen.name} has ended; it said: {fallen.last_words()}")
                if time.monotonic() > end:
                    self.promise(promise, False, f"nothing for {self.patience:g} s")
                if bars is not None:
                    show(bars())
                time.sleep(_POLL)
            if bars is not None:
                show(bars())

    def finish(
        self, ids: Iterable[str], what: str, bars: Callable[[], Mapping[str, tuple[int, int]]] | None = None
    ) -> list[Run]:
        """Wait until all these tasks have ended well; the runs of all of them, in the order of their starts."""
        wanted = set(ids)
        ended: set[str] = set()

        def done() -> bool:
            ended.update(run.task_id for run in self.trace.runs() if run.end is not None and run.task_id in wanted)
            return len(ended) == len(wanted)

        self.wait(what, done, bars or (lambda: {"done": (len(ended), len(wanted))}))
        # The body has ended; its result is on its way.
        failed = [state for state in map(self._final_state, wanted) if state != states.SUCCESS]
        self.promise(what, not failed, f"{len(failed)} of {len(wanted)} ended as {set(failed)}")
        return self.trace.runs(lambda run: run.task_id in wanted)

    def queue_lengths(self, *names: str) -> dict[str, int]:
        """How many messages wait at the broker in each queue; what a worker has fetched is not among them."""
        found = {depth.queue: depth.waiting for depth in self._depths.read()}
        return {name: found.get(name, 0) for name in names}

    def waited(self, run: Run) -> float:
        """Seconds between the sending of a task and the start of its body."""
        return run.start - self.sent[run.task_id]

    def _ready(self, names: Iterable[str]) -> bool:
        return set(names) <= {line["worker"] for line in self.trace.lines("ready")}

    def _final_state(self, task_id: str) -> str:
        end = time.monotonic() + 10.0
        while (state := self.app.backend.get_state(task_id)) not in states.READY_STATES and time.monotonic() < end:
            time.sleep(_POLL)
        return str(state)


def places(runs: Iterable[Run]) -> dict[str, set[str]]:
    """Client -> the workers on which its tasks ran."""
    found: dict[str, set[str]] = {}
    for run in runs:
        found.setdefault(run.client, set()).add(run.worker)
    return found


def _listed(names: Sequence[str]) -> str:
    return f"worker {names[0]} is" if len(names) == 1 else f"workers {', '.join(names)} are"
