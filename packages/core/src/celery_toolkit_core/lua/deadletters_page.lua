--@include celery_toolkit_core:clock
--@include celery_toolkit_core:deadletters
-- A page of letters, oldest first; writes nothing. O(log letters + count). Data model: deadletters.lua.
-- KEYS  1-3 the list
-- ARGV  1 start as XRANGE takes it, 2 count
-- Returns {entry id, who replays it or '', fields, ...}
local list, now = dead_list(KEYS, 1), now_ms()
local answer = {}
for _, entry in ipairs(redis.call('XRANGE', list.letters, ARGV[1], '+', 'COUNT', ARGV[2])) do
  answer[#answer + 1] = entry[1]
  answer[#answer + 1] = dead_holder(list, dead_id(entry[2]), now) or ''
  answer[#answer + 1] = entry[2]
end
return answer
