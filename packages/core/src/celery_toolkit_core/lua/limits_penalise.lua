--@include celery_toolkit_core:clock
-- Let nothing start under the given limits for a while; never shortens a penalty. O(limits). Data model: limits.lua.
-- KEYS  the penalty key of each limit
-- ARGV  1 ms
-- Returns 1. Works at maxmemory: the first write needs no memory.
local until_ms = now_ms() + ARGV[1]
for _, penalty in ipairs(KEYS) do
  if tonumber(redis.call('GET', penalty) or 0) < until_ms then
    redis.call('DEL', penalty)
    redis.call('SET', penalty, until_ms, 'PX', ARGV[1])
  end
end
return 1
