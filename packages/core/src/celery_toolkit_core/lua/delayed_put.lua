--@include celery_toolkit_core:clock
--@include celery_toolkit_core:delayed
-- Let an entry wait, once per token. O(log entries). Data model: delayed.lua.
-- KEYS  1 receipt, 2-6 the queue
-- ARGV  1 id, 2 payload, 3 ms until due, 4 order ('': first come, first served)
-- Returns the entry's order as text
local order = redis.call('GET', KEYS[1])
if order then
  return order
end
local us = now_us()
local now = math.floor(us / 1000)
order = string.format('%.17g', tonumber(ARGV[4]) or us)
redis.call('SET', KEYS[1], order, 'PX', DELAYED_MEMORY_MS)
delayed_put(delayed_queue(KEYS, 2), ARGV[1], ARGV[2], now + tonumber(ARGV[3]), order, now)
return order
