-- The members of one ring. Include file.
--
-- Data model; KEYS 1 to 7 of every script here
--   1 records   HASH  name -> what the worker says of itself (JSON of ours, opaque here). Every known member has one.
--   2 tokens    HASH  name -> token of the process that owns the name now
--   3 ends      ZSET  name -> end of its lease in ms; the living members
--   4 draining  SET   names that get no new keys although they live
--   5 gone      ZSET  name -> since when in ms; dead members, whose queues may hold messages
--   6 epoch     STRING  raised by whatever changes who owns which key
--   7 traffic   HASH  name -> what the worker has counted lately (JSON of ours, opaque here); the living members
-- A name is in exactly one of `ends` and `gone`. All keys end MEMORY_MS after the last sign of life of any worker, and
-- a dead member is forgotten after the same time.
local MEMORY_MS = 7 * 24 * 3600 * 1000

-- Never lower than the clock in microseconds: after a restart without data the epoch is still a new one.
local function raise_epoch(us)
  redis.call('SET', KEYS[6], string.format('%.0f', math.max(us, tonumber(redis.call('GET', KEYS[6]) or 0) + 1)))
end

local function lose(name, now)
  redis.call('HDEL', KEYS[2], name)
  redis.call('ZREM', KEYS[3], name)
  redis.call('SREM', KEYS[4], name)
  redis.call('HDEL', KEYS[7], name)
  redis.call('ZADD', KEYS[5], now, name)
end

-- Move every member whose lease has ended to the dead, forget the long dead; true when somebody was moved.
local function reap(now)
  local ended = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now)
  for _, name in ipairs(ended) do
    lose(name, now)
  end
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[5], '-inf', now - MEMORY_MS)) do
    redis.call('ZREM', KEYS[5], name)
    redis.call('HDEL', KEYS[1], name)
  end
  return #ended > 0
end

local function keep()
  for index = 1, 7 do
    redis.call('PEXPIRE', KEYS[index], MEMORY_MS)
  end
end
