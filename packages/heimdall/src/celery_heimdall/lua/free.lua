--@include celery_toolkit_core:clock
-- Free a key by hand, whoever has it. Data model: lock.lua.
-- KEYS  1 lock  2 lane of those who wait for it  3 due (parking.lua)
-- ARGV  1 lane
-- Returns 1 | 0 (nobody had it)
local had = redis.call('HDEL', KEYS[1], 'queued_id', 'queued_until_ms', 'reserved_until_ms', 'queued_attempt', 'next_attempt',
  'taken_by', 'running', 'running_until_ms', 'running_since_ms')
if redis.call('EXISTS', KEYS[2]) == 1 then
  redis.call('ZADD', KEYS[3], now_ms(), ARGV[1])
end
return had > 0 and 1 or 0
