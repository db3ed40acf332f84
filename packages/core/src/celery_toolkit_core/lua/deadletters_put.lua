--@include celery_toolkit_core:clock
--@include celery_toolkit_core:deadletters
-- Put a letter, once per token; one of the same id is replaced. O(log letters). Data model: deadletters.lua.
-- KEYS  1 receipt, 2-4 the list
-- ARGV  1 letter id, 2 most letters, 3 keep_ms, 4... field, value, ...
-- Returns how many old letters went to make room
local before = redis.call('GET', KEYS[1])
if before then
  return tonumber(before)
end
local list, now = dead_list(KEYS, 2), now_ms()
local keep_ms = tonumber(ARGV[3])
redis.call('SET', KEYS[1], 0, 'PX', DEAD_MEMORY_MS)
dead_drop(list, ARGV[1])
local entry = redis.call('XADD', list.letters, '*', 'id', ARGV[1], unpack(ARGV, 4))
redis.call('HSET', list.index, ARGV[1], entry)
-- The bound keeps one call short when `most` was lowered; the next puts go on.
local gone = dead_trim(list, now - keep_ms, tonumber(ARGV[2]), 100)
for _, key in pairs(list) do
  redis.call('PEXPIRE', key, keep_ms)
end
redis.call('SET', KEYS[1], gone, 'PX', DEAD_MEMORY_MS)
return gone
