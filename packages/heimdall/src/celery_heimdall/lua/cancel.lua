-- The publish failed: give an unconfirmed reservation back. Data model: lock.lua.
-- KEYS  1 lock
-- ARGV  1 task id
-- Returns 1 | 0 (it is not this task's, or no mere reservation any more)
local found = redis.call('HMGET', KEYS[1], 'queued_id', 'reserved_until_ms')
if found[1] ~= ARGV[1] or not found[2] then
  return 0
end
redis.call('HDEL', KEYS[1], 'queued_id', 'queued_until_ms', 'reserved_until_ms', 'queued_attempt', 'next_attempt')
return 1
