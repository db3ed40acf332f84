--@include celery_toolkit_core:clock
--@include celery_chain_router:members
-- Give a living member no new keys. O(1).
-- KEYS  see members.lua
-- ARGV  1 name, 2 token, or '' when an operator asks
-- Returns 1 | 0 when no such member lives (or another process has the name)
local owner = redis.call('HGET', KEYS[2], ARGV[1])
if not owner or (ARGV[2] ~= '' and owner ~= ARGV[2]) then
  return 0
end
if redis.call('SADD', KEYS[4], ARGV[1]) == 1 then
  raise_epoch(now_us())
  keep()
end
return 1
