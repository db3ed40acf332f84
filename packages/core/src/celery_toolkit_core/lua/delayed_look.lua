--@include celery_toolkit_core:clock
--@include celery_toolkit_core:delayed
-- How much waits, and when the next entry can be taken; writes nothing. O(log entries). Data model: delayed.lua.
-- KEYS  1-5 the queue
-- ARGV  none
-- Returns {later, ready, taken, ms until an entry can be taken or -1}; what has come due counts as ready
local queue, now = delayed_queue(KEYS, 1), now_ms()
local due = redis.call('ZCOUNT', queue.later, '-inf', now)
local ended = redis.call('ZCOUNT', queue.taken, '-inf', now)
local ready = redis.call('ZCARD', queue.ready) + due + ended
local next_ms = ready > 0 and 0 or -1
for _, set in ipairs({queue.later, queue.taken}) do
  local first = tonumber(redis.call('ZRANGE', set, 0, 0, 'WITHSCORES')[2] or nil)
  if first and ready == 0 then
    next_ms = next_ms == -1 and first - now or math.min(next_ms, first - now)
  end
end
return {redis.call('ZCARD', queue.later) - due, ready, redis.call('ZCARD', queue.taken) - ended, next_ms}
