--@include celery_toolkit_core:clock
--@include celery_heimdall:parking
-- A woken or entered task was not taken up in time (its worker died): back to its place in the lane.
-- KEYS  1-6 parking  7 lane
-- ARGV  1 task id  2 lane  3 spec of the lane
-- Returns 1 | 0 (somebody has taken it up meanwhile)
local now = now_ms()
local held = tonumber(redis.call('ZSCORE', KEYS[4], ARGV[1]) or nil)
local item = item_read(KEYS, ARGV[1])
if not held or held > now or not item then
  return 0
end
woken_less(KEYS, item, now)
park(KEYS, KEYS[7], ARGV[2], ARGV[3], ARGV[1], item, '', now, now)
return 1
