-- Let nothing start under the given limits for a while; never shortens a penalty. O(limits). Data model: limits.lua.
-- KEYS  the penalty key of each limit
-- ARGV  1 ms
-- Returns 1. Works at maxmemory: the first write needs no memory.
for _, penalty in ipairs(KEYS) do
  if redis.call('PTTL', penalty) < tonumber(ARGV[1]) then
    redis.call('DEL', penalty)
    redis.call('SET', penalty, '1', 'PX', ARGV[1])
  end
end
return 1
