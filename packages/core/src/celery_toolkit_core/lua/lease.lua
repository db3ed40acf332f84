-- Leases: at most `permits` tokens hold a name at a time, each until its end unless it renews. Include file.
--
-- Data model of one name
--   holders  ZSET  token -> the lease's end (ms). A member whose end has come holds nothing. A token that gave its lease
--                  back stays for RELEASE_MEMORY_MS as -(end of that memory), so that a replayed release gets the same
--                  answer.
--   fences   HASH  token -> its fence; field '' -> the last fence given out. `false` instead of a key: leases without
--                  fences (slots of a concurrency limit).
-- Both keys expire FENCE_MEMORY_MS after the last end; holders without fences expire with the last end.
-- A fence is max(last fence + 1, now in microseconds). So it rises even when the hash has expired or the server came
-- back without data; the hash is kept only to bridge a clock that steps back.
--
-- Contract, for scripts that decide more than a lease (all O(log holders)):
--   lease_held(holders, token, now_ms)                                  -> end in ms, or nil; writes nothing
--   lease_sweep(holders, fences, now_ms)                                -> number of live holders; forgets the ended
--   lease_first_end(holders, now_ms)                                    -> earliest end in ms, token; nil when none
--   lease_acquire(holders, fences, token, permits, ttl_ms, now_us)      -> true, fence | false. The holder itself gets
--                                                                          its own fence again, and a new end.
--   lease_renew(holders, fences, token, ttl_ms, now_ms)                 -> true | false (not the holder any more)
--   lease_release(holders, fences, token, now_ms)                       -> true | false (held nothing)
-- renew and release work on a server at maxmemory: their first write needs no memory.
local FENCE_MEMORY_MS = 600000
local RELEASE_MEMORY_MS = 10000

local function lease_held(holders, token, now)
  local ends = tonumber(redis.call('ZSCORE', holders, token) or 0)
  return ends > now and ends or nil
end

local function lease_sweep(holders, fences, now)
  -- Only when there is something to forget: a write that needs no memory would open the door to an acquire on a server
  -- at maxmemory, which is to be refused.
  if redis.call('ZCOUNT', holders, -now, now) > 0 then
    if fences then
      for _, token in ipairs(redis.call('ZRANGEBYSCORE', holders, 0, now)) do
        redis.call('HDEL', fences, token)
      end
    end
    redis.call('ZREMRANGEBYSCORE', holders, -now, now)
  end
  return redis.call('ZCOUNT', holders, now, '+inf')
end

local function lease_first_end(holders, now)
  local first = redis.call('ZRANGEBYSCORE', holders, now + 1, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  return tonumber(first[2]), first[1]
end

-- The holders stay as long as the fences do, so that a sweep finds whose fences to forget.
local function lease_expire(holders, fences, now, ttl_ms)
  if not ttl_ms then
    local last = tonumber(redis.call('ZRANGE', holders, -1, -1, 'WITHSCORES')[2] or 0)
    local remembered = -tonumber(redis.call('ZRANGE', holders, 0, 0, 'WITHSCORES')[2] or 0)
    ttl_ms = math.max(last, remembered) - now
  end
  if fences then
    ttl_ms = ttl_ms + FENCE_MEMORY_MS
    redis.call('PEXPIRE', fences, ttl_ms)
  end
  redis.call('PEXPIRE', holders, ttl_ms)
end

local function lease_acquire(holders, fences, token, permits, ttl_ms, us)
  local now = math.floor(us / 1000)
  -- The ordinary case, and the one to be quick in: nobody holds it, nor has lately.
  local known = redis.call('EXISTS', holders) == 1
  local mine
  if known then
    local held = lease_sweep(holders, fences, now)
    mine = lease_held(holders, token, now)
    if not mine and held >= permits then
      return false
    end
  end
  local fence
  if fences then
    fence = mine and tonumber(redis.call('HGET', fences, token) or nil)
    if not fence then
      fence = math.max(us, tonumber(redis.call('HGET', fences, '') or 0) + 1)
      redis.call('HSET', fences, '', fence, token, fence)
    end
  end
  redis.call('ZADD', holders, now + ttl_ms, token)
  lease_expire(holders, fences, now, not known and ttl_ms)
  return true, fence
end

local function lease_renew(holders, fences, token, ttl_ms, now)
  if not lease_held(holders, token, now) then
    return false
  end
  redis.call('PEXPIRE', holders, ttl_ms)
  redis.call('ZADD', holders, now + ttl_ms, token)
  lease_expire(holders, fences, now)
  return true
end

local function lease_release(holders, fences, token, now)
  local score = tonumber(redis.call('ZSCORE', holders, token) or 0)
  if score > now then
    redis.call('ZREM', holders, token)
    redis.call('ZADD', holders, -(now + RELEASE_MEMORY_MS), token)
    if fences then
      redis.call('HDEL', fences, token)
    end
    lease_expire(holders, fences, now)
  end
  return score > now or score < -now
end
