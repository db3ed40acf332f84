--@include celery_heimdall:lock
-- The body of a task without limits starts: with until = start, the next one may be queued. Data model: lock.lua.
-- KEYS  1 lock
-- ARGV  1 task id
-- Returns 1 | 0 (the key was another's). Works at maxmemory: the first write needs no memory.
if redis.call('HGET', KEYS[1], 'queued_id') ~= ARGV[1] then
  return 0
end
redis.call('HDEL', KEYS[1], 'queued_id', 'queued_until_ms', 'reserved_until_ms', 'next_attempt')
lock_owe(KEYS[1], redis.call('HGET', KEYS[1], 'owed') or '', ARGV[1])
return 1
