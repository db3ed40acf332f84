--@include celery_toolkit_core:clock
--@include celery_heimdall:parking
-- Put bytes that nobody can read aside, for the operator.
-- KEYS  1-6 parking  7 quarantine: HASH task id -> message
-- ARGV  1 task id
-- Returns 1 | 0 (there was no message)
local body = redis.call('HGET', KEYS[2], ARGV[1])
if body then
  redis.call('HSET', KEYS[7], ARGV[1], body)
end
local item = item_read(KEYS, ARGV[1])
if item then
  woken_less(KEYS, item, now_ms())
end
item_remove(KEYS, ARGV[1])
return body and 1 or 0
