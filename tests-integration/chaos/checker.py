"""Judges a chaos run from two files alone: what was submitted, and what the bodies and the killer noted."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

Event = dict[str, Any]


class Run(NamedTuple):
    """One body: from its first to its last moment, in seconds of the machine's monotonic clock."""

    id: str
    kind: str
    key: str
    pid: int
    start: float
    end: float
    finished: bool
    fence: int | None


@dataclass
class Verdict:
    """What the checker found; `faults` empty means that every promise held."""

    figures: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def runs_of(events: list[Event], now: float) -> list[Run]:
    """Pair starts with ends; a body without an end lasted until its process was killed (or until `now`)."""
    deaths: dict[int, list[float]] = defaultdict(list)
    for event in events:
        if event["what"] == "kill":
            for pid in event["pids"]:
                deaths[pid].append(event["at"])
    open_starts: dict[tuple[str, int], Event] = {}
    runs: list[Run] = []

    def close(start: Event, end: float, finished: bool) -> None:
        runs.append(
            Run(start["id"], start["kind"], start["key"], start["pid"], start["at"], end, finished, start.get("fence"))
        )

    for event in events:
        if event["what"] == "start":
            open_starts[event["id"], event["pid"]] = event
        elif event["what"] == "end":
            start = open_starts.pop((event["id"], event["pid"]), None)
            if start is not None:
                close(start, event["at"], True)
    for start in open_starts.values():
        after = [at for at in deaths[start["pid"]] if at >= start["at"]]
        close(start, min(after, default=now), False)
    return runs


class Frozen:
    """Which processes were stopped, and when: what such a process began it ends late, under a lease it has lost.

    Args:
        events: Those of the run; ``freeze`` and ``thaw`` name the same `pids`.
    """

    def __init__(self, events: list[Event]) -> None:
        self.spans: dict[int, list[tuple[float, float]]] = defaultdict(list)
        begun: dict[int, float] = {}
        for event in events:
            if event["what"] == "freeze":
                begun |= dict.fromkeys(event["pids"], event["at"])
            elif event["what"] == "thaw":
                for pid in event["pids"]:
                    self.spans[pid].append((begun.pop(pid, event["at"]), event["at"]))

    def within(self, run: Run) -> bool:
        """Whether the body was stopped while it ran."""
        return any(run.start < thaw and freeze < run.end for freeze, thaw in self.spans[run.pid])

    def delayed(self, run: Run, jitter: float) -> bool:
        """Whether the note of its start may be late: its process had just been stopped."""
        return any(freeze <= run.start <= thaw + jitter for freeze, thaw in self.spans[run.pid])


def judge(
    submitted: list[Event],
    events: list[Event],
    *,
    now: float,
    limit: tuple[int, float],
    jitter: float,
    ambiguous: int = 0,
) -> Verdict:
    """Compare what ran with what was submitted.

    Args:
        submitted: One for each accepted task: ``id``, ``kind``, ``key``, and how often its body is to run, if not once.
        events: ``start``, ``end``, ``kill``, ``freeze``, ``thaw``, ``restart``, ``left over`` and ``dead letter``
            events.
        now: When the run ended.
        limit: Times and seconds of the limited kind.
        jitter: Seconds that may lie between a grant and the body's note of its start; windows are judged shorter by it.
        ambiguous: Submissions that raised: nobody can say whether they count.
    """
    verdict = Verdict()
    runs = runs_of(events, now)
    wanted = {event["id"]: event for event in submitted}
    finished = Counter(run.id for run in runs if run.finished)
    lost = [task_id for task_id in wanted if not finished[task_id]]
    frozen = Frozen(events)
    twice = [task_id for task_id, count in finished.items() if count > wanted.get(task_id, {}).get("runs", 1)]
    killed = sum(not run.finished for run in runs)
    strangers = {run.id for run in runs} - set(wanted)

    overlaps = 0
    by_key: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        if run.kind == "single":
            by_key[run.key].append(run)
    for same in by_key.values():
        same.sort(key=lambda run: run.start)
        # A body that was stopped runs on without its lease, which nobody can prevent; its fence tells it apart.
        for before, after in pairwise([run for run in same if not frozen.within(run)]):
            if after.start < before.end:
                overlaps += 1
                verdict.faults.append(f"overlap of {before.key}: {before} and {after}")
        for before, after in pairwise(same):
            if before.fence is not None and after.fence is not None and after.fence < before.fence:
                verdict.faults.append(f"the fence of {before.key} fell: {before} and {after}")

    times, per = limit
    starts = sorted(run.start for run in runs if run.kind == "limited" and not frozen.delayed(run, jitter))
    crowded = 0
    for first, last in zip(starts, starts[times:], strict=False):
        if last - first < per - jitter:
            crowded += 1
    if crowded:
        verdict.faults.append(f"{crowded} windows of {per} s hold more than {times} starts")
    if lost:
        kinds = Counter(wanted[task_id]["kind"] for task_id in lost)
        verdict.faults.append(f"{len(lost)} lost: {dict(kinds)}, such as {lost[:3]}")
    # A body may be cut down, and one more may have ended without its worker's living to say so: both were in flight.
    kills = sum(event["what"] == "kill" for event in events)
    in_flight = sum(event.get("in_flight", 0) for event in events if event["what"] in ("kill", "freeze"))
    ordered = sum(event.get("runs", 1) for event in submitted)
    if len(runs) - ordered - len(strangers) > in_flight:
        verdict.faults.append(f"{len(runs) - ordered} runs too many for {in_flight} tasks in flight at kills")
    verdict.faults += [f"left over: {event['text']}" for event in events if event["what"] == "left over"]
    # Kept with its message, for people to send again; but no task of this run has a reason to end so.
    letters = [event["text"] for event in events if event["what"] == "dead letter"]
    if letters:
        verdict.faults.append(f"{len(letters)} dead letters, such as {letters[:3]}")
    if len(strangers) > ambiguous:
        verdict.faults.append(f"{len(strangers)} tasks ran that nobody submitted")
    verdict.figures = {
        "submitted": len(wanted),
        "finished": len(finished),
        "lost": len(lost),
        "dead letters": len(letters),
        "finished once too often": len(twice),
        "cut down": killed,
        "kills": kills,
        "freezes": sum(event["what"] == "freeze" for event in events),
        "restarts": sum(event["what"] == "restart" for event in events),
        "in flight at kills": in_flight,
        "overlaps": overlaps,
        "crowded windows": crowded,
    }
    return verdict
