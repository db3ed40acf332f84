--@include celery_heimdall:lock
--@include celery_toolkit_core:limits
-- A worker still has a task in hand: renew all that it holds. Works at maxmemory.
-- KEYS  1 held (parking.lua)  2 lock  3 running  4 fences  then the limits'
-- ARGV  1 task id  2 token  3 lease in ms  4 1: it has the right to run  then the limits'
-- Returns 1 | 0: the right to run, or a place, is lost
local us = now_us()
local now = math.floor(us / 1000)
local token, lease_ms = ARGV[2], tonumber(ARGV[3])
local kept = true
if ARGV[4] == '1' then
  kept = lease_renew(KEYS[3], KEYS[4], token, lease_ms, now)
  if kept and redis.call('PTTL', KEYS[2]) < ENDED_MEMORY_MS then
    lock_keep(KEYS[2], now)
  end
end
kept = limits_renew(limits_read(KEYS, 5, ARGV, 5), token, us) and kept
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  redis.call('ZADD', KEYS[1], 'XX', now + lease_ms, ARGV[1])
end
return kept and 1 or 0
