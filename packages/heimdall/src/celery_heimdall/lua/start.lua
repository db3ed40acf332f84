--@include celery_toolkit_core:clock
--@include celery_heimdall:parking
--@include celery_toolkit_core:limits
-- The body of a limited task is about to start: the strict decision. What was charged when it entered is moved to now,
-- and when there is no room any more (it waited in the worker for too long) it goes back to the head of its lane.
-- KEYS  1-6 parking  7 lane of the limits  8 lane of the lock  9 lock  10 began  then the limits'
-- ARGV  1 task id  2 token  3 permille to wait longer than expected  4 name of this very question
--       of the task: 5 lease in ms  6 unique  7 1: one body at a time  8 ttl in ms  9 ms after which a body is hung
--       10 task name  11 the limits' strategies (parking.lua)
--       12 spec of the limits' lane  13 limits' lane  then the limits'
-- Returns stamp of the start | {'parked', ms} | {'refused', place of the limit that ends it, ms} | {'stale'}
local us = now_us()
local now = math.floor(us / 1000)
local id, token = ARGV[1], ARGV[2]
local item = item_read(KEYS, id)
if not item or item.token ~= token or item.state ~= 'entered' then
  -- Asked once more because the answer was lost; or a second body, which must not start.
  local stamp = began_read(KEYS[10], token, ARGV[4])
  return stamp and tonumber(stamp) or {'stale'}
end
local limits = limits_read(KEYS, 11, ARGV, 14)
if item.stamp then
  limits_again(limits, item.stamp, item.costs)
end
item.costs = limits_costs(limits)
local wait, ends, look = limits_refusal(limits_blocked(limits, token, us), ARGV[11], limits)
if ARGV[7] == '1' then
  local running = redis.call('HMGET', KEYS[9], 'running', 'running_until_ms')
  if running[1] ~= token or tonumber(running[2] or 0) <= now then
    wait, ends, look = wait or 1, nil, look or 1
  end
end
if wait then
  limits_forgo(limits)
  limits_release(limits, token, us)
end
if ends then
  item_remove(KEYS, id)
  return {'refused', ends, wait}
elseif wait then
  look = math.ceil(look * (1 + ARGV[3] / 1000))
  item.returned = token
  park(KEYS, KEYS[7], ARGV[13], ARGV[12], id, item, '', now + look, now)
  return {'parked', look}
end
local stamp = limits_charge(limits, token, us)
item_remove(KEYS, id)
began_write(KEYS[10], token, item.parkings and BEGAN_MEMORY_MS or BEGAN_ANSWER_MS, ARGV[4], stamp)
if ARGV[6] == 'start' and redis.call('HGET', KEYS[9], 'queued_id') == id then
--@include celery_heimdall:lock
  lock_owe(KEYS[9], redis.call('HGET', KEYS[9], 'owed') or '', id)
  redis.call('HDEL', KEYS[9], 'queued_id', 'queued_until_ms', 'next_attempt')
end
return stamp
