-- The message of a reservation was published: from now on the lock lasts as long as the user said. Model: lock.lua.
-- KEYS  1 lock
-- ARGV  1 task id
-- Returns 1 | 0 (another task has the key, or nobody)
if redis.call('HGET', KEYS[1], 'queued_id') ~= ARGV[1] then
  return 0
end
redis.call('HDEL', KEYS[1], 'reserved_until_ms')
return 1
