--@include celery_heimdall:lock
--@include celery_heimdall:parking
--@include celery_toolkit_core:limits
-- The body of a limited task is about to start: the strict decision. What was charged when it entered is moved to now,
-- and when there is no room any more (it waited in the worker for too long) it goes back to the head of its lane.
-- KEYS  1-6 parking  7 lane of the limits  8 lock  9 began  then the limits'
-- ARGV  1 task id  2 token  3 limits' lane  4 spec of that lane  5 unique  6 1: one body at a time
--       7 the limits' strategies (parking.lua)  8 permille to wait longer than expected  9 name of this very question
--       then the limits'
-- Returns {'go', stamp of the start} | {'parked', ms} | {'refused', place of the limit that ends it, ms} | {'stale'}
local us = now_us()
local now = math.floor(us / 1000)
local id, token = ARGV[1], ARGV[2]
local item = item_read(KEYS, id)
if not item or item.token ~= token or item.state ~= 'entered' then
  -- Asked once more because the answer was lost; or a second body, which must not start.
  local stamp = began_read(KEYS[9], token, ARGV[9])
  return stamp and {'go', stamp} or {'stale'}
end
local limits = limits_read(KEYS, 10, ARGV, 10)
item.costs = limits_costs(limits)
if item.stamp then
  limits_cost(limits, {})
  limits_settle(limits, item.stamp)
  limits_cost(limits, item.costs)
end
local wait, ends, look = limits_refusal(limits_blocked(limits, token, us), ARGV[7], limits)
if ARGV[6] == '1' and lock_read(KEYS[8], now).token ~= token then
  wait, ends, look = wait or 1, nil, look or 1
end
if wait then
  limits_release(limits, token, us)
end
if ends then
  item_remove(KEYS, id)
  return {'refused', ends, wait}
elseif wait then
  look = math.ceil(look * (1 + ARGV[8] / 1000))
  item.returned = token
  park(KEYS, KEYS[7], ARGV[3], ARGV[4], id, item, '', now + look, now)
  return {'parked', look}
end
local stamp = limits_charge(limits, token, us)
item_remove(KEYS, id)
began_write(KEYS[9], token, item.parkings and BEGAN_MEMORY_MS or BEGAN_ANSWER_MS, ARGV[9], stamp)
if ARGV[5] == 'start' and redis.call('HGET', KEYS[8], 'queued_id') == id then
  lock_owe(KEYS[8], redis.call('HGET', KEYS[8], 'owed') or '', id)
  redis.call('HDEL', KEYS[8], 'queued_id', 'queued_until_ms')
end
return {'go', stamp}
