--@include celery_toolkit_core:clock
--@include celery_toolkit_core:deadletters
-- Remove letters: those of the given ids, and up to 1000 of those older than some time. O(log letters) per letter.
-- Data model: deadletters.lua.
-- KEYS  1-3 the list
-- ARGV  1 ms of age that stay (-1: all stay), 2... letter ids
-- Returns how many went
local list = dead_list(KEYS, 1)
local age = tonumber(ARGV[1])
local gone = 0
if age >= 0 then
  gone = dead_trim(list, now_ms() - age + (age == 0 and 1 or 0), math.huge, 1000)
end
for i = 2, #ARGV do
  gone = gone + (dead_drop(list, ARGV[i]) and 1 or 0)
end
return gone
