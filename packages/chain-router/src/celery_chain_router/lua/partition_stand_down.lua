--@include celery_toolkit_core:clock
--@include celery_chain_router:members
--@include celery_chain_router:partitions
-- Say that this worker ends soon. Its partitions wait for its slot to come back, for so long. O(1).
-- KEYS  see members.lua and partitions.lua
-- ARGV  1 name, 2 token, 3 grace_ms
-- Returns 1 | 0 when the name is not (any more) this token's
local us = now_us()
if redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[2] then
  return 0
end
redis.call('SADD', KEYS[4], ARGV[1])
if tonumber(ARGV[3]) > 0 then
  redis.call('ZADD', KEYS[11], math.floor(us / 1000) + tonumber(ARGV[3]), ARGV[1])
end
raise_epoch(us)
keep_all()
return 1
