--@include celery_toolkit_core:clock
--@include celery_toolkit_core:lease
-- Take one permit of a name, or learn who holds it. O(log holders). Data model: lease.lua.
-- KEYS  1 holders, 2 fences
-- ARGV  1 token, 2 permits, 3 ttl_ms
-- Returns {1, fence, ttl_ms} | {0, the holder whose lease ends first, ms until then}
local us = now_us()
local held, fence = lease_acquire(KEYS[1], KEYS[2], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), us)
if held then
  return {1, fence, tonumber(ARGV[3])}
end
local now = math.floor(us / 1000)
local ends, holder = lease_first_end(KEYS[1], now)
return {0, holder, ends - now}
