--@include celery_heimdall:lock
--@include celery_toolkit_core:limits
-- A worker still has some tasks in hand: renew all that they hold. One script for many, because a pipeline of scripts
-- is not to be had on a cluster. Works at maxmemory.
-- KEYS  1 held (parking.lua)  then of each task: lock  and the limits'
-- ARGV  of each task: id  token  lease in ms  1: it has the right to run  and the limits'
-- Returns of each task 1 | 0: the right to run, or a place, is lost
local us = now_us()
local now = math.floor(us / 1000)
local answer = {}
local key, arg = 2, 1
while ARGV[arg] do
  local id, token, lease_ms = ARGV[arg], ARGV[arg + 1], tonumber(ARGV[arg + 2])
  local lock, kept = KEYS[key], true
  if ARGV[arg + 3] == '1' then
    local state = lock_read(lock, now)
    kept = state.token == token
    if kept then
      -- In this order: the first write needs no memory.
      lock_keep(lock, now, tonumber(state.queued_until_ms or nil), now + lease_ms)
      redis.call('HSET', lock, 'running_until_ms', now + lease_ms)
    end
  end
  local limits = limits_read(KEYS, key + 1, ARGV, arg + 4)
  kept = limits_renew(limits, token, us) and kept
  if redis.call('ZSCORE', KEYS[1], id) then
    redis.call('ZADD', KEYS[1], 'XX', now + lease_ms, id)
  end
  answer[#answer + 1] = kept and 1 or 0
  key, arg = limits.next_key, limits.next_arg
end
return answer
