"""What heimdall holds at this moment, for operators: read page by page, never changed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .waking import SUFFIX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .store import Store

#: Entries asked for in one SCAN or HSCAN.
PAGE = 500


def now_ms(store: Store) -> int:
    """The server's clock in milliseconds."""
    seconds, micros = store.client.time()
    return int(seconds) * 1000 + int(micros) // 1000


def locks(store: Store, *, task: str | None = None) -> Iterator[dict[str, Any]]:
    """The locks that somebody holds: key, task, state, holder, and the seconds until each part ends."""
    now = now_ms(store)
    for name in store.client.scan_iter(match=f"{_escaped(store.space.key('lock'))}:*", count=PAGE):
        found = _lock(store, name, now)
        if found is not None and task in (None, found["task"]):
            yield found


def lock(store: Store, keys: tuple[str, str]) -> dict[str, Any] | None:
    """One lock, from the keys that `Store.lock` gives."""
    return _lock(store, keys[1].encode(), now_ms(store))


def _lock(store: Store, name: bytes, now: int) -> dict[str, Any] | None:
    digest = name.decode().rpartition(":")[2]
    with store.client.pipeline(transaction=False) as pipeline:
        pipeline.hgetall(name)
        pipeline.zcard(store.space.key("lane") + ":" + digest)
        fields, waiting = pipeline.execute()
    fields = {key.decode(): value.decode() for key, value in fields.items()}
    until = min(int(fields.get("queued_until_ms", 0)), int(fields.get("reserved_until_ms", 2**53)))
    queued = fields.get("queued_id") if until > now else None
    lease_ends = int(fields.get("running_until_ms", 0))
    running = fields["running"].rpartition("/")[0] if lease_ends > now else None
    if queued is None and running is None:
        return None
    state = "running" if running else "reserved" if "reserved_until_ms" in fields else "queued"
    return {
        "key": fields.get("label", digest),
        "task": fields.get("task", ""),
        "state": state,
        "holder": running or queued,
        "accepts_next_in": max(0, until - now) / 1000,
        "lease_ends_in": (lease_ends - now) / 1000 if running else None,
        "waiting": waiting,
    }


def parked(store: Store) -> Iterator[dict[str, Any]]:
    """The tasks that wait in Redis: id, state, queue, and since when."""
    now = now_ms(store)
    for task_id, text in store.client.hscan_iter(store.parking[0], count=PAGE):
        yield _item(task_id.decode(), json.loads(text), now)


def explain(store: Store, task_id: str) -> str:
    """Why a task is not running, in one sentence."""
    text = store.client.hget(store.parking[0], task_id)
    now = now_ms(store)
    if text is None:
        for found in locks(store):
            if found["holder"] == task_id:
                return f"it holds the key {found['key']} and is {found['state']}"
        return "heimdall keeps nothing of it: it waits in the broker's queue, runs without a lock, or has ended"
    item = json.loads(text)
    row = _item(task_id, item, now)
    if item["state"] == "waking":
        return f"it was woken and waits in {item['queue']}{SUFFIX} for a worker with a free process"
    if item["state"] == "entered":
        return "a worker has it in hand and its body is about to start"
    rank = store.client.zrank(store.space.key("lane") + ":" + item["lane"], task_id)
    due = store.client.zscore(store.parking[2], item["lane"])
    place = f"{(rank or 0) + 1} in its lane"
    when = f"the next look is in {max(0.0, (due or now) - now) / 1000:.1f} s"
    if item.get("holder"):
        return f"it waits for the end of task {item['holder']}, whose result it shares; {when}"
    what = "a limit" if "args" in json.loads(item["spec"]) else "a running task of its key"
    return f"it has waited for {what} for {row['waits_for']:.1f} s as number {place}; {when}"


def _item(task_id: str, item: dict[str, Any], now: int) -> dict[str, Any]:
    return {
        "id": task_id,
        "state": item["state"],
        "queue": item["queue"],
        "waits_for": (now - item["since"]) / 1000 if "since" in item else 0.0,
        "parkings": item.get("parkings", 0),
    }


def _escaped(text: str) -> str:
    return "".join(f"\\{sign}" if sign in "*?[]\\^" else sign for sign in text)
