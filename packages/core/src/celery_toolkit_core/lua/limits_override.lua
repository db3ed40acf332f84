--@include celery_toolkit_core:clock
-- Put another value in force for a limit, or restore the defined one. O(parts with a value). Data model: limits.lua.
-- KEYS  1 values
-- ARGV  1 part's digest or '', 2 times (-1: restore; 0: paused), 3 span_us, 4 for how many ms (0: until restored)
-- Returns 1. Restoring works at maxmemory.
local now = now_ms()
local lasting = tonumber(ARGV[4])
if ARGV[2] == '-1' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  local until_ms = string.format('%.0f', lasting > 0 and now + lasting or 0)
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. ARGV[3] .. ' ' .. until_ms)
end
-- The key lives as long as its longest value; values that have ended go as we come by.
local last = 0
local fields = redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
  local ends = tonumber(fields[i + 1]:match('(%d+)$'))
  if ends > 0 and ends <= now then
    redis.call('HDEL', KEYS[1], fields[i])
  else
    last = math.max(last, ends > 0 and ends or math.huge)
  end
end
if last == math.huge then
  redis.call('PERSIST', KEYS[1])
elseif last > 0 then
  redis.call('PEXPIRE', KEYS[1], last - now)
end
return 1
