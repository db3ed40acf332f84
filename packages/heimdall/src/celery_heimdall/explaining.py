"""Why a task is not running, in one sentence."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from celery_toolkit_core.scripts import Scripts

from . import inspection
from .waking import SUFFIX

if TYPE_CHECKING:
    from celery import Celery

    from .store import Store

_AGAIN = (
    "; a task that is acknowledged late is delivered again (by Redis after its visibility_timeout, an hour by "
    "default), another one is lost"
)


def explain(app: Celery, stores: list[Store], task_id: str) -> dict[str, Any]:
    """Why a task is not running: its id, the reason as a word, and as a sentence."""
    for store in stores:
        reason = _in_store(store, task_id)
        if reason is not None:
            return _row(task_id, *reason)
    ended, text = _by_result(app, task_id)
    for store in stores if ended == "unknown" else ():
        for found in inspection.locks(store, stale=True):
            if found["holder"] == task_id and found["state"] == "free":
                more = _AGAIN if found["stale"] == inspection.WORKER_DIED else ""
                return _row(task_id, "forgotten", f"{found['stale']}, and its key {found['key']} is free{more}")
    return _row(task_id, ended, text)


def _in_store(store: Store, task_id: str) -> tuple[str, str] | None:
    text = store.client.hget(store.parking[0], task_id)
    if text is not None:
        return _of_item(store, task_id, inspection.read_item(text))
    if store.client.hexists(store.space.key("quarantine"), task_id):
        return "quarantined", "its message could not be read and was put aside; see the worker's log of that time"
    for found in inspection.locks(store):
        if found["holder"] == task_id:
            return f"holds-{found['state']}", f"it holds the key {found['key']} and is {found['state']}"
    lost = inspection.owed(store, task_id)
    if lost is not None:
        return "lost-its-key", (
            f"its key {lost['key']} went to a later task, because its worker died or its time was over; it runs when "
            "the broker delivers it again and no other body of the key runs"
        )
    return None


def _of_item(store: Store, task_id: str, item: dict[str, Any]) -> tuple[str, str]:
    now = inspection.now_ms(store)
    row = inspection.item_row(store, task_id, item, now)
    if item["state"] == "unreadable":
        return "quarantined", "what we know of it cannot be read; a worker will put it aside"
    if item["state"] == "waking":
        return "woken", f"it was woken and waits in {item['queue']}{SUFFIX} for a worker with a free process"
    if item["state"] == "entered":
        return "entered", "a worker has it in hand and its body is about to start"
    due = store.client.zscore(store.parking[2], item["lane"])
    when = f"the next look is in {max(0.0, (due or now) - now) / 1000:.1f} s"
    waited = f"it has waited {row['waited']:.1f} s"
    if item.get("holder"):
        return "joined", f"{waited} for the end of task {item['holder']}, whose result it shares; {when}"
    spec = json.loads(item["spec"])
    if "args" not in spec:
        held = inspection.lock_by_digest(store, item["lane"])
        return "key", f"{waited} for {row['for']}, under which {held['holder']} is {held['state']}; {when}"
    rank = store.client.zrank(f"{store.space.key('lane')}:{item['lane']}", task_id) or 0
    reason, words = _of_limits(store, spec)
    return reason, f"{waited} for {row['for']}, as number {rank + 1} in line{words}; {when}"


def _of_limits(store: Store, spec: dict[str, Any]) -> tuple[str, str]:
    flat = Scripts(store.client, "celery_toolkit_core").run("limits_peek", spec["keys"][1:], spec["args"])
    reason, words = "limit", ""
    for (name, *part), times, span_us, used, wait, penalty in zip(
        spec["names"], *(flat[start::5] for start in range(5)), strict=True
    ):
        if not wait:
            continue
        limit = inspection.limit_label(name.removeprefix(store.settings.rate_limit_prefix), *part)
        if not times:
            reason, words = "paused", f"{words}; {limit} is paused"
        elif penalty:
            reason, words = "penalised", f"{words}; {limit} is stopped for {penalty / 1e6:.1f} s"
        else:
            words = f"{words}; {limit} is full, {used} of {times} in {span_us / 1e6:g} s"
    return reason, words


def _by_result(app: Celery, task_id: str) -> tuple[str, str]:
    nothing = "it waits in the broker's queue, runs without a lock, or its message is lost"
    try:
        result = app.AsyncResult(task_id)
        state: str = result.state
    except Exception:  # noqa: BLE001  # an application without a result backend
        return "unknown", f"heimdall keeps nothing of it: {nothing}"
    if state == "REVOKED":
        return "ended", f"it has ended: REVOKED, {result.result}"
    if state in ("SUCCESS", "FAILURE"):
        return "ended", f"it has ended: {state}"
    return "unknown", f"heimdall keeps nothing of it, and its state is {state}: {nothing}"


def _row(task_id: str, reason: str, text: str) -> dict[str, Any]:
    return {"id": task_id, "reason": reason, "text": text}
