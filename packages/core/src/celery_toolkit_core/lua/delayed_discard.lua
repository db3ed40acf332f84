--@include celery_toolkit_core:delayed
-- Forget entries, whatever their state. O(log entries) per entry. Data model: delayed.lua.
-- KEYS  1-5 the queue
-- ARGV  ids
-- Returns how many were there
local discarded = 0
for _, id in ipairs(ARGV) do
  discarded = discarded + (delayed_discard(delayed_queue(KEYS, 1), id) and 1 or 0)
end
return discarded
