-- Leases: at most `permits` tokens hold a name at a time, each until its end unless it renews. Include file.
--
-- Data model of one name
--   holders  ZSET  token -> the lease's end (ms). A member whose end has come holds nothing. The key expires with the
--                  last end.
--   fences   HASH  token -> its fence; field '' -> the last fence given out. The key outlives the last end by
--                  FENCE_MEMORY_MS. `false` instead of a key: leases without fences (slots of a concurrency limit).
-- A fence is max(last fence + 1, now in microseconds). So it rises even when the hash has expired or the server came
-- back without data; the hash is kept only to bridge a clock that steps back.
--
-- Contract, for scripts that decide more than a lease (all O(log holders)):
--   lease_held(holders, token, now_ms)                                      -> end in ms, or nil; writes nothing
--   lease_sweep(holders, fences, now_ms)                                    -> number of live holders; removes the ended
--   lease_first_end(holders)                                                -> earliest end in ms, token; nil when none
--   lease_acquire(holders, fences, token, permits, ttl_ms, now_us)          -> true, fence | false. The holder itself
--                                                                              gets its own fence again, and a new end.
--   lease_renew(holders, fences, token, ttl_ms, now_ms)                     -> true | false (not the holder any more)
--   lease_release(holders, fences, token, now_ms)                           -> true | false (held nothing)
-- renew and release work on a server at maxmemory: their first write needs no memory.
local FENCE_MEMORY_MS = 600000

local function lease_held(holders, token, now)
  local ends = tonumber(redis.call('ZSCORE', holders, token) or 0)
  return ends > now and ends or nil
end

local function lease_sweep(holders, fences, now)
  if fences then
    for _, token in ipairs(redis.call('ZRANGEBYSCORE', holders, '-inf', now)) do
      redis.call('HDEL', fences, token)
    end
  end
  redis.call('ZREMRANGEBYSCORE', holders, '-inf', now)
  return redis.call('ZCARD', holders)
end

local function lease_first_end(holders)
  local first = redis.call('ZRANGE', holders, 0, 0, 'WITHSCORES')
  return tonumber(first[2]), first[1]
end

local function lease_expire(holders, fences)
  local last = tonumber(redis.call('ZRANGE', holders, -1, -1, 'WITHSCORES')[2])
  if last then
    redis.call('PEXPIREAT', holders, last)
    if fences then
      redis.call('PEXPIREAT', fences, last + FENCE_MEMORY_MS)
    end
  end
end

local function lease_acquire(holders, fences, token, permits, ttl_ms, us)
  local now = math.floor(us / 1000)
  local held = lease_sweep(holders, fences, now)
  local mine = lease_held(holders, token, now)
  if not mine and held >= permits then
    return false
  end
  local fence
  if fences then
    fence = mine and tonumber(redis.call('HGET', fences, token))
    if not fence then
      fence = math.max(us, tonumber(redis.call('HGET', fences, '') or 0) + 1)
      redis.call('HSET', fences, '', fence, token, fence)
    end
  end
  redis.call('ZADD', holders, now + ttl_ms, token)
  lease_expire(holders, fences)
  return true, fence
end

local function lease_renew(holders, fences, token, ttl_ms, now)
  if not lease_held(holders, token, now) then
    return false
  end
  redis.call('PEXPIREAT', holders, now + ttl_ms)
  redis.call('ZADD', holders, now + ttl_ms, token)
  lease_expire(holders, fences)
  return true
end

local function lease_release(holders, fences, token, now)
  local mine = lease_held(holders, token, now)
  redis.call('ZREM', holders, token)
  if fences then
    redis.call('HDEL', fences, token)
  end
  lease_expire(holders, fences)
  return mine ~= nil
end
