"""The Lua functions, included by a script of another package that decides several things at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import redis

from celery_toolkit_core.delayed import Delayed
from celery_toolkit_core.limits import Concurrency, Decision, Limiter, RateLimit, refusal, script_args, script_keys
from celery_toolkit_core.scripts import Scripts

ENTER = """
--@include celery_toolkit_core:clock
--@include celery_toolkit_core:limits
--@include celery_toolkit_core:lease
--@include celery_toolkit_core:delayed
-- Start when the lock and all limits allow it, else park, in one step.
-- KEYS  1-2 the lock's holders and fences, 3-7 the queue of the parked, then the limits'
-- ARGV  1 token, 2 payload, then the limits'
local us = now_us()
local now = math.floor(us / 1000)
local limits = limits_read(KEYS, 8, ARGV, 3)
local blocked = limits_blocked(limits, ARGV[1], us)
local locked = lease_sweep(KEYS[1], KEYS[2], now) > 0 and not lease_held(KEYS[1], ARGV[1], now)
if blocked[1] or locked then
  delayed_put(delayed_queue(KEYS, 3), ARGV[1], ARGV[2], now + (blocked[1] and blocked[1][2] / 1000 or 0), us, now)
  local answer = {0}
  for _, one in ipairs(blocked) do
    answer[#answer + 1] = one[1]
    answer[#answer + 1] = one[2]
  end
  return answer
end
lease_acquire(KEYS[1], KEYS[2], ARGV[1], 1, 30000, us)
return {1, limits_charge(limits, ARGV[1], us)}
"""


def test_a_script_of_ones_own_decides_a_lock_two_limits_and_parking(
    redis_client: redis.Redis, keys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "includes_probe"
    (package / "lua").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "lua" / "enter.lua").write_text(ENTER)
    monkeypatch.syspath_prepend(tmp_path)
    scripts, limiter, parked = (
        Scripts(redis_client, "includes_probe"),
        Limiter(redis_client, keys),
        Delayed(redis_client, keys),
    )
    demands = [RateLimit("2/h", name="api").demand("acme", cost=2), Concurrency(5, name="erp").demand()]

    def enter(token: str, lock: str) -> Decision:
        held = [keys.key("lease", lock), keys.key("lease-fence", lock)]
        answer = scripts.run(
            "enter", [*held, *parked.queue_keys, *script_keys(keys, demands)], [token, b"\xff", *script_args(demands)]
        )
        return Decision(True, stamp=answer[1]) if answer[0] else refusal(demands, answer[1:] or [1, 0])

    assert enter("first", "lock-a")
    refused = enter("second", "lock-b")
    assert refused.blocked_by == ("api",)
    assert refused.retry_after is not None
    assert 3590 < refused.retry_after <= 3600.000002
    assert not enter("third", "lock-a")
    assert (parked.look().later, parked.look().ready) == (2, 0)
    assert [state.used for state in limiter.peek(demands)] == [2, 1]
    assert limiter.release(demands, token="first")
