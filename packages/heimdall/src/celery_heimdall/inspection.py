"""What heimdall holds at this moment, for operators: read page by page, never changed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .store import Store

#: Entries asked for in one SCAN or HSCAN.
PAGE = 500
#: How many of the tasks that wait for one key are named.
SOME = 10
#: Why a lock looks forgotten, when its worker is the reason.
WORKER_DIED = "the worker that had it died"


def now_ms(store: Store) -> int:
    """The server's clock in milliseconds."""
    return int(store.run("now", store.parking[:1]))


def locks(store: Store, *, task: str | None = None, stale: bool = False) -> Iterator[dict[str, Any]]:
    """The locks that somebody holds, or whose holder has gone: key, task, state, holder, and when each part ends.

    Args:
        store: Where.
        task: Only those that tasks of this name took last.
        stale: Those that look forgotten, with the reason as `stale`, instead of those that are held: nobody renews or
            confirms them any more, or their body runs for longer than ``heimdall_stuck_after``.
    """
    now = now_ms(store)
    for name in store.client.scan_iter(match=f"{_escaped(store.space.key('lock'))}:*", count=PAGE):
        found = _lock(store, name.decode(), now)
        if task in (None, found["task"]) and (found["stale"] if stale else found["state"] != "free"):
            yield found


def lock(store: Store, prefix: str, label: str) -> dict[str, Any] | None:
    """One lock that somebody holds, with the first tasks that wait for it."""
    found = _lock(store, store.lock(prefix, label), now_ms(store))
    if found["state"] == "free":
        return None
    waiting = [task_id.decode() for task_id in store.client.zrange(store.lane(prefix, label), 0, SOME - 1)]
    return {**found, "waiting_tasks": waiting}


def lock_by_digest(store: Store, digest: str) -> dict[str, Any]:
    """One lock, held or not, by the name of the lane of those who wait for it."""
    lane = f"{store.space.key('lane')}:{digest}"
    spec = store.client.hget(store.parking[5], digest)
    name = json.loads(spec)["keys"][1] if spec else lane
    return _lock(store, name, now_ms(store))


def owed(store: Store, task_id: str) -> dict[str, Any] | None:
    """The lock that this task has lost to a later one before it had ended."""
    now = now_ms(store)
    for name in store.client.scan_iter(match=f"{_escaped(store.space.key('lock'))}:*", count=PAGE):
        found = store.client.hget(name, "owed")
        if found and task_id in found.decode().split("\n"):
            return _lock(store, name.decode(), now)
    return None


def parked(store: Store, *, name: str | None = None) -> Iterator[dict[str, Any]]:
    """The tasks that wait in Redis: id, task, state, queue, what for and for how long, in seconds.

    Args:
        store: Where.
        name: Only those that wait for a limit or key of this name, or for this part of a limit.
    """
    now = now_ms(store)
    for task_id, text in store.client.hscan_iter(store.parking[0], count=PAGE):
        item = read_item(text)
        if item["state"] == "entered":
            continue
        if name is None or name in _names(store, item):
            yield item_row(store, task_id.decode(), item, now)


def read_item(text: bytes) -> dict[str, Any]:
    """What is known of a parked task; of state ``unreadable`` where that is poisoned, until a worker puts it aside."""
    try:
        item = json.loads(text)
    except ValueError:
        item = None
    return item if isinstance(item, dict) and "state" in item else {"state": "unreadable", "queue": ""}


def item_row(store: Store, task_id: str, item: dict[str, Any], now: int) -> dict[str, Any]:
    """One parked task, for people."""
    return {
        "id": task_id,
        "task": item.get("task", ""),
        "state": item["state"],
        "queue": item["queue"],
        "for": " and ".join(_names(store, item, whole=True)),
        "waited": (now - item["since"]) / 1000 if "since" in item else 0.0,
        "parkings": item.get("parkings", 0),
    }


def limit_label(name: str, *part: str) -> str:
    """A limit, or one part of it, for people."""
    return f"{name}[{', '.join(part)}]" if part else name


def _names(store: Store, item: dict[str, Any], *, whole: bool = False) -> list[str]:
    spec = json.loads(item["spec"]) if item.get("spec") else {}
    prefix = store.settings.rate_limit_prefix
    limits = [[name.removeprefix(prefix), *part] for name, *part in spec.get("names", ())]
    if whole:
        words = [f"the limit {limit_label(*limit)}" for limit in limits]
        return words or [f"the key {spec['label']}"] if spec else []
    return [*(name for limit in limits for name in limit), *([spec["label"]] if "label" in spec else [])]


def _lock(store: Store, name: str, now: int) -> dict[str, Any]:
    digest = name.rpartition(":")[2]
    with store.client.pipeline(transaction=False) as pipeline:
        pipeline.hgetall(name)
        pipeline.zcard(store.space.key("lane") + ":" + digest)
        found, waiting = pipeline.execute()
    fields = {key.decode(): value.decode() for key, value in found.items()}
    until, reserved = int(fields.get("queued_until_ms", 0)), int(fields.get("reserved_until_ms", 2**53))
    lease_ends = int(fields.get("running_until_ms", 0))
    running = fields["running"].rpartition("/")[0] if lease_ends > now else None
    queued, gone = fields.get("queued_id"), None
    if queued and queued != fields.get("ended_id"):
        if reserved <= now:
            gone = "it was never published: its producer died"
        elif "taken_by" in fields and (fields["taken_by"] != fields.get("running") or not running):
            gone = WORKER_DIED
        elif until <= now:
            gone = "its time was over before it had ended"
    if gone or min(until, reserved) <= now:
        queued = None
    since = (now - int(fields["running_since_ms"])) / 1000 if running else None
    if since is not None and since > store.settings.stuck_after:
        gone = "its body hangs, or takes very long"
    state = "running" if running else "free" if queued is None else "reserved" if reserved < 2**53 else "queued"
    return {
        "key": fields.get("label", digest),
        "task": fields.get("task", ""),
        "state": state,
        "holder": running or queued or fields.get("queued_id"),
        "accepts_next_in": max(0, min(until, reserved) - now) / 1000 if queued else 0.0,
        "lease_ends_in": (lease_ends - now) / 1000 if running else None,
        "runs_for": since,
        "waiting": waiting,
        "stale": gone,
    }


def _escaped(text: str) -> str:
    return "".join(f"\\{sign}" if sign in "*?[]\\^" else sign for sign in text)
