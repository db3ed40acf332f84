--@include celery_toolkit_core:clock
--@include celery_chain_router:members
-- Give a name back: its keys go to the others at once. O(1).
-- KEYS  see members.lua
-- ARGV  1 name, 2 token
-- Returns 1 | 0 when the name is not (any more) this token's
if redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[2] then
  return 0
end
local us = now_us()
lose(ARGV[1], math.floor(us / 1000))
raise_epoch(us)
keep()
return 1
