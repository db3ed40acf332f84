--@include celery_heimdall:lock
--@include celery_heimdall:parking
--@include celery_toolkit_core:limits
-- A task has ended, or left the worker: give back what this token holds, and nothing of anybody else. Works at
-- maxmemory, but for the memory of who ended.
-- KEYS  1-6 parking  7 lane of the limits  8 lane of the lock  9 lock  10 running  11 fences  12 began
--       then the limits'
-- ARGV  1 task id  2 token  3 attempt  4 how it ended  5 1: the task comes back (retry, requeue): it keeps its place
--       6 unique  7 limits' lane or ''  8 lock's lane  then the limits'
-- Returns 1 when a lane should be looked at now, else 0
local us = now_us()
local now = math.floor(us / 1000)
local id, token, comes_back, unique = ARGV[1], ARGV[2], ARGV[5] == '1', ARGV[6]
local look = 0

redis.call('DEL', KEYS[12])  -- the first write must be one that needs no memory
local limits = limits_read(KEYS, 13, ARGV, 9)
limits_release(limits, token, us)
local item = item_read(KEYS, id)
if item and item.token == token and item.state == 'entered' then
  if item.stamp then
    limits_cost(limits, {})
    limits_settle(limits, item.stamp)
  end
  item_remove(KEYS, id)
  item = nil
end
if item and item.returned == token then
  comes_back = true
end
if ARGV[7] ~= '' and redis.call('EXISTS', KEYS[7]) == 1 then
  redis.call('ZADD', KEYS[3], now, ARGV[7])
  look = 1
end

if unique ~= 'none' then
  if ARGV[4] == 'ignored' then
    -- Also what a worker says that came too late with a stale token: the task itself is still under way elsewhere.
    local state = lock_read(KEYS[9], KEYS[10], now)
    comes_back = comes_back or item ~= nil and item ~= false or (state.token and state.token ~= token)
  end
  lease_release(KEYS[10], KEYS[11], token, now)
  if comes_back and redis.call('HGET', KEYS[9], 'taken_by') == token then
    redis.call('HDEL', KEYS[9], 'taken_by')
  end
  if redis.call('HGET', KEYS[9], 'queued_id') == id and not comes_back and unique ~= 'expiry' then
    redis.call('HDEL', KEYS[9], 'queued_id', 'queued_until_ms', 'reserved_until_ms', 'queued_attempt', 'taken_by')
  end
  if redis.call('EXISTS', KEYS[8]) == 1 then
    redis.call('ZADD', KEYS[3], now, ARGV[8])
    look = 1
  end
  if not comes_back then
    local until_ms = tonumber(redis.call('HGET', KEYS[9], 'queued_until_ms') or nil)
    lock_pay(KEYS[9], id)
    redis.call('HSET', KEYS[9], 'ended_id', id, 'ended_state', ARGV[4], 'ended_attempt', ARGV[3])
    if not until_ms then
      redis.call('HDEL', KEYS[9], 'label', 'task')
    end
    lock_keep(KEYS[9], now, until_ms)
  end
end
return look
