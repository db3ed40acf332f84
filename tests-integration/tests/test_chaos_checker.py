"""The chaos run's checker finds what it is there to find."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

spec = importlib.util.spec_from_file_location("chaos_checker", Path(__file__).parents[1] / "chaos/checker.py")
assert spec
assert spec.loader
checker = importlib.util.module_from_spec(spec)
sys.modules["chaos_checker"] = checker
spec.loader.exec_module(checker)


def task(task_id: str, kind: str = "fair", key: str = "k") -> dict[str, Any]:
    """A submission."""
    return {"id": task_id, "kind": kind, "key": key}


def body(
    task_id: str, start: float, end: float | None, *, kind: str = "fair", pid: int = 1, fence: int | None = None
) -> list[dict[str, Any]]:
    """The events of one body."""
    common = {"id": task_id, "kind": kind, "key": "k", "pid": pid}
    events = [{"what": "start", "at": start, "fence": fence, **common}]
    return events if end is None else [*events, {"what": "end", "at": end, **common}]


def faults(submitted: list[Any], *events: Any) -> str:
    """The faults as one text."""
    flat = sorted((event for group in events for event in group), key=lambda event: event["at"])
    return "\n".join(checker.judge(submitted, flat, now=100.0, limit=(2, 1.0), jitter=0.1).faults)


def kill(at: float, *pids: int, in_flight: int = 1) -> list[dict[str, Any]]:
    """A kill of these processes."""
    return [{"what": "kill", "at": at, "pids": list(pids), "in_flight": in_flight}]


def test_a_clean_run_has_no_fault() -> None:
    assert not faults([task("a"), task("b")], body("a", 1, 2), body("b", 1, 2))


def test_what_never_finished_is_lost() -> None:
    assert "1 lost" in faults([task("a"), task("b")], body("a", 1, 2), body("b", 1, None))


def test_a_dead_letter_is_a_fault_although_its_body_had_ended() -> None:
    letter = [{"what": "dead letter", "at": 5, "text": "a (failed)"}]
    assert "1 dead letters" in faults([task("a")], body("a", 1, 2), letter)


def test_bodies_of_one_key_that_overlap_are_found() -> None:
    both = [task("a", "single"), task("b", "single")]
    assert "overlap" in faults(both, body("a", 1, 3, kind="single"), body("b", 2, 4, kind="single", pid=2))
    assert not faults(both, body("a", 1, 2, kind="single"), body("b", 2.1, 4, kind="single", pid=2))


def test_a_killed_body_ends_with_its_process() -> None:
    one = [task("a", "single")]
    again = body("a", 3, 4, kind="single", pid=2)
    assert not faults(one, body("a", 1, None, kind="single"), kill(2, 1), again)
    assert "overlap" in faults(one, body("a", 1, None, kind="single"), kill(3.5, 1), again)


def frozen(since: float, until: float, *pids: int) -> list[dict[str, Any]]:
    """A process that is stopped and goes on."""
    return [
        {"what": "freeze", "at": since, "pids": list(pids), "in_flight": 1},
        {"what": "thaw", "at": until, "pids": list(pids)},
    ]


def test_a_stopped_body_may_end_late_but_the_next_two_may_not_overlap() -> None:
    three = [task(name, "single") for name in "abc"]
    stopped = body("a", 1, 9, kind="single", fence=1)
    second, third = body("b", 3, 5, kind="single", pid=2, fence=2), body("c", 4, 6, kind="single", pid=3, fence=3)
    assert not faults(three[:2], stopped, frozen(2, 8, 1), second)
    assert "overlap" in faults(three[:2], stopped, second)
    assert "overlap" in faults(three, stopped, frozen(2, 8, 1), second, third)


def test_a_body_that_is_to_run_twice_may() -> None:
    again = body("a", 1, 2), body("a", 3, 4)
    assert not faults([{**task("a"), "runs": 2}], *again)
    assert "runs too many" in faults([task("a")], *again)


def test_what_is_left_over_is_a_fault() -> None:
    assert "left over: a lock" in faults([], [{"what": "left over", "at": 1, "text": "a lock"}])


def test_a_fence_that_falls_is_found() -> None:
    both = [task("a", "single"), task("b", "single")]
    first, second = body("a", 1, 2, kind="single", fence=5), body("b", 3, 4, kind="single", fence=4)
    assert "fence" in faults(both, first, second)


def test_a_crowded_window_is_found() -> None:
    three = [task(name, "limited") for name in "abc"]
    close = [body(name, at, at + 0.1, kind="limited") for name, at in zip("abc", (1, 1.4, 1.8), strict=True)]
    wide = [body(name, at, at + 0.1, kind="limited") for name, at in zip("abc", (1, 1.4, 2.1), strict=True)]
    assert "1 windows" in faults(three, *close)
    assert not faults(three, *wide)


def test_more_runs_than_the_kills_explain_are_found() -> None:
    assert "1 runs too many for 0" in faults([task("a")], body("a", 1, 2), body("a", 3, 4))
    assert not faults([task("a")], body("a", 1, 2), kill(2, 9), body("a", 3, 4))


def test_a_task_that_nobody_submitted_is_found() -> None:
    assert "nobody submitted" in faults([task("a")], body("a", 1, 2), body("x", 1, 2))
