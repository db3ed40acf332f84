--@include celery_heimdall:lock_life
-- A task has ended, or left the worker: give back what this token holds, and nothing of anybody else. Works at
-- maxmemory, but for the memory of who ended.
-- KEYS  1-6 parking  7 lane of the limits  8 lane of the lock  9 lock  10 began  then the limits'
-- ARGV  1 task id  2 token  3 attempt  4 how it ended  5 1: the task comes back (retry, requeue): it keeps its place
--       6 unique  7 limits' lane or ''  then the limits'
-- Returns 1 when a lane should be looked at now, else 0
local us = now_us()
local now = math.floor(us / 1000)
local id, token, comes_back, unique = ARGV[1], ARGV[2], ARGV[5] == '1', ARGV[6]

redis.call('DEL', KEYS[10])  -- the first write must be one that needs no memory

-- The ordinary case, before anything is made ready that only the others need: the body of a task without limits has
-- ended under the lock, and its key is free now.
if unique == 'finish' and ARGV[7] == '' and not comes_back and ARGV[4] ~= 'ignored' then
  local lock = KEYS[9]
  local f = redis.call('HMGET', lock, 'queued_id', 'running', 'owed')
  if f[1] == id and f[2] == token and not f[3] and not redis.call('HGET', KEYS[1], id)
    and redis.call('EXISTS', KEYS[8]) == 0 then
    redis.call('HDEL', lock, 'running', 'running_until_ms', 'running_since_ms', 'queued_id', 'queued_until_ms',
      'reserved_until_ms', 'queued_attempt', 'next_attempt', 'taken_by', 'label', 'task')
    redis.call('HSET', lock, 'ended_id', id, 'ended_state', ARGV[4], 'ended_attempt', ARGV[3])
    lock_keep(lock, now)
    return 0
  end
end

--@include celery_heimdall:parking
--@include celery_toolkit_core:limits
local look = 0
local limits = limits_read(KEYS, 11, ARGV, 8)
-- A start that was made is not given back: it leaves its window by itself.
local gives_room = limits_release(limits, token, us)
local item = item_read(KEYS, id)
if item and item.token == token and item.state == 'entered' then
  if item.stamp then
    limits_cost(limits, {})
    limits_settle(limits, item.stamp)
  end
  gives_room = true
  item_remove(KEYS, id)
  item = nil
end
if item and item.returned == token then
  comes_back = true
end
if gives_room and ARGV[7] ~= '' and redis.call('EXISTS', KEYS[7]) == 1 then
  redis.call('ZADD', KEYS[3], now, ARGV[7])
  look = 1
end

if unique ~= 'none' then
--@include celery_heimdall:lock
  local lock = KEYS[9]
  local state = lock_read(lock, now)
  if ARGV[4] == 'ignored' then
    -- Also what a worker says that came too late with a stale token: the task itself is still under way elsewhere.
    comes_back = comes_back or item ~= nil and item ~= false or (state.token and state.token ~= token)
      or (state.ended == id and state.runner ~= token)
  end
  local gone, until_ms = {}, tonumber(state.queued_until_ms or nil)
  local function forget(...)
    for _, field in ipairs({...}) do
      gone[#gone + 1] = field
    end
  end
  if state.runner == token then
    forget('running', 'running_until_ms', 'running_since_ms')
    state.ends_ms = nil
  end
  if comes_back and state.taken_by == token then
    forget('taken_by')
  elseif state.queued_id == id and not comes_back and unique ~= 'expiry' then
    forget('queued_id', 'queued_until_ms', 'reserved_until_ms', 'queued_attempt', 'next_attempt', 'taken_by')
    until_ms = nil
  end
  if not comes_back and not until_ms then
    forget('label', 'task')
  end
  if gone[1] then
    redis.call('HDEL', lock, unpack(gone))
  end
  if redis.call('EXISTS', KEYS[8]) == 1 then
    redis.call('ZADD', KEYS[3], now, lane_of(KEYS[8]))
    look = 1
  end
  if not comes_back then
    lock_pay(lock, state.owed, id)
    redis.call('HSET', lock, 'ended_id', id, 'ended_state', ARGV[4], 'ended_attempt', ARGV[3])
    lock_keep(lock, now, until_ms, state.ends_ms)
  end
end
return look
