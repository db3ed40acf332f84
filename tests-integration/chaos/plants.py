"""Faults that are planted on purpose: the run with one of them must end red, or the check checks nothing.

Each changes our code in the processes of the run alone. A plant that does not fit its place any more is an error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery_toolkit_core import scripts
from celery_toolkit_core.keeper import Keeper

Change = tuple[str, str]


def plant(name: str, lease: float) -> None:
    """Plant one fault; an empty name plants none.

    Args:
        name: A key of `PLANTS`.
        lease: Seconds of the leases of this run.
    """
    if name:
        PLANTS[name](lease)


def change_lua(*changes: Change) -> None:
    """Let every script that contains a text contain another in its place; all of them must be found somewhere."""
    real = scripts.source

    def source(package: str, name: str) -> str:
        text = real(package, name)
        for before, after in changes:
            text = text.replace(before, after)
        return text

    for before, _ in changes:
        if not any(before in real(*place) for place in PLACES):
            raise LookupError(f"this plant fits nowhere any more: {before!r}")
    scripts.source = source  # type: ignore[assignment]  # the cache of the real one stays behind it


#: Where a change is looked for.
PLACES = (("celery_heimdall", "finish"), ("celery_heimdall", "start"), ("celery_ranch", "claim"))


def release_without_owner(lease: float) -> None:
    """Whoever ends frees the key, also one that had lost it."""
    change_lua(
        ("  if state.runner == token then\n", "  do\n"),
        ("  elseif state.queued_id == id and not comes_back", "  elseif not comes_back"),
    )


def limit_by_get_then_set(lease: float) -> None:
    """The count is read by one call and raised by a later one: what happens in between is not seen."""
    change_lua(
        ("local function limits_blocked(", "local function limits_blocked_now("),
        (
            "local function limits_charge(",
            """local function limits_blocked(limits, token, now)
  local seen = limits[1] and limits[1].log .. ':seen'
  if seen and redis.call('EXISTS', seen) == 1 then
    for _, limit in ipairs(limits) do limit_wait(limit, token, now) end
    return {}
  end
  local blocked = limits_blocked_now(limits, token, now)
  if seen and not blocked[1] then redis.call('SET', seen, '1', 'PX', 200) end
  return blocked
end

local function limits_charge(""",
        ),
    )


def claim_without_lease(lease: float) -> None:
    """A claimed task is in nobody's list: when its worker dies, nobody knows."""
    change_lua(("redis.call('ZADD', INFLIGHT, now + lease_ms, id)\n", ""))


def no_renewal(lease: float) -> None:
    """Leases end while their bodies run."""
    real = Keeper.every

    def every(self: Keeper, seconds: float, job: Callable[[], object], **options: Any) -> object:
        renewal = seconds == lease / 3 and "router" not in self.name
        return real(self, seconds, (lambda: None) if renewal else job, **options)

    Keeper.every = every  # type: ignore[method-assign, assignment]  # that is the plant


PLANTS: dict[str, Callable[[float], None]] = {
    "release-without-owner": release_without_owner,
    "limit-by-get-then-set": limit_by_get_then_set,
    "claim-without-lease": claim_without_lease,
    "no-renewal": no_renewal,
}
