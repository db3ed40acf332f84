"""What the tests of the Redis structures share."""

from __future__ import annotations

import re

import pytest
import redis

from celery_toolkit_core import scripts
from celery_toolkit_core.keys import KeySpace

# Stands before each script in place of the server's clock. Expiry follows the same clock: a key's end is noted, and
# `VirtualClock.advance` removes what has ended, as the server does when its own clock says so.
_VIRTUAL = """
local function virtual_call(command, key, ...)
  local clock = redis.call('LRANGE', 'virtual:clock', 0, 1)
  local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
  local args = {...}
  if command == 'TIME' then
    return clock
  elseif command == 'PEXPIRE' then
    if redis.call('EXISTS', key) == 0 then
      return 0
    end
    assert(tonumber(args[1]) > 0, 'a key was told to expire in the past')
    redis.call('ZADD', 'virtual:ends', now_ms + args[1], key)
    return 1
  elseif command == 'PERSIST' then
    return redis.call('ZREM', 'virtual:ends', key)
  elseif command == 'PTTL' then
    local ends = redis.call('ZSCORE', 'virtual:ends', key)
    return ends and redis.call('EXISTS', key) == 1 and tonumber(ends) - now_ms or -1
  elseif command == 'SET' and args[2] == 'PX' then
    redis.call('ZADD', 'virtual:ends', now_ms + args[3], key)
    return redis.call('SET', key, args[1])
  elseif command == 'XADD' then
    args[1] = string.format('%.0f-%d', now_ms, redis.call('INCR', 'virtual:entries'))
    return redis.call('XADD', key, unpack(args))
  end
  return redis.call(command, key, ...)
end
"""


class VirtualClock:
    """The clock of the scripts under the test's control, exact to the microsecond; it stands still by itself."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.reset()

    @property
    def us(self) -> int:
        return self._us

    @property
    def ms(self) -> int:
        return self._us // 1000

    def reset(self) -> None:
        """An empty server at a fixed moment."""
        self._us = 1_800_000_000_000_777
        self.client.flushall()
        self._write()

    def advance(self, us: int) -> None:
        self._us += us
        self._write()
        for key in self.client.zrangebyscore("virtual:ends", "-inf", f"({self.ms}"):
            self.client.delete(key)
            self.client.zrem("virtual:ends", key)

    def _write(self) -> None:
        pipe = self.client.pipeline()
        pipe.delete("virtual:clock")
        pipe.rpush("virtual:clock", self._us // 1_000_000, self._us % 1_000_000)
        pipe.execute()


@pytest.fixture
def virtual_clock(redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> VirtualClock:
    """Scripts that are run for the first time from now on follow this clock instead of the server's."""
    if isinstance(redis_client, redis.RedisCluster):
        pytest.skip("the clock's key lies on one node only")
    real = scripts.source

    def source(package: str, name: str) -> str:
        return _VIRTUAL + re.sub(r"redis\.call\(", "virtual_call(", real(package, name))

    monkeypatch.setattr(scripts, "source", source)
    return VirtualClock(redis_client)


@pytest.fixture
def keys() -> KeySpace:
    return KeySpace("test")
