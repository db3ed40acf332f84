--@include celery_heimdall:lock
--@include celery_heimdall:parking
--@include celery_toolkit_core:limits
-- A worker has received a task: decide its lock and its limits together; grant all, or keep the message in a lane.
-- Data models: lock.lua, parking.lua, core's limits.lua.
-- KEYS  1-6 parking  7 lane of the limits  8 lane of the lock  9 lock  10 running  11 fences  12 began
--       then the limits'
-- ARGV  1 task id  2 token  3 attempt  4 1: woken by us  5 lease in ms
--       6 unique: none, start, finish or expiry  7 1: one body at a time  8 ttl in ms  9 ms after which a body is hung
--       10 limits' lane, or ''  11 lock's lane  12 queue  13 message, or '' when it is not at hand
--       14 1: its time has not come, decide the limits when the body starts  15 1: a duplicate waits and joins
--       16 id of the holder that it joins, or ''  17 label  18 task name  19 spec of the limits' lane
--       20 spec of the lock's lane  then the limits'
-- Returns {'run', fence, expected holder's id or ''} | {'parked', ms until the next look, 'locked' or 'limited'}
--       | {'join', holder's id, how it ended} | {'duplicate', holder's id} | {'drop', why} | {'message'}: call again with the message
local us = now_us()
local now = math.floor(us / 1000)
local id, token, attempt = ARGV[1], ARGV[2], tonumber(ARGV[3])
local woken, lease_ms, unique = ARGV[4] == '1', tonumber(ARGV[5]), ARGV[6]
local one_body, ttl_ms, hung_ms = ARGV[7] == '1', tonumber(ARGV[8]), tonumber(ARGV[9])
local message = ARGV[13]

local item = item_read(KEYS, id)
if woken then
  if not item and redis.call('GET', KEYS[12]) == token then
    -- The broker hands out again what began and never ended: an ordinary message by now.
    return {'message'}
  elseif not item or item.token ~= token or item.state == 'parked' then
    return {'drop', 'stale'}
  end
elseif item and item.state ~= 'entered' then
  return {'drop', 'kept'}
end
item = item or {}
item.token, item.attempt = token, attempt
item.queue = woken and item.queue or ARGV[12]
if not item.holder and ARGV[16] ~= '' then
  item.holder = ARGV[16]
end

local function wait_for_lock(due_ms)
  if message == '' and not woken then
    return {'message'}
  end
  park(KEYS, KEYS[8], ARGV[11], ARGV[20], id, item, message, due_ms, now)
  return {'parked', due_ms - now, 'locked'}
end

-- Write down whose the key is, unless a later call has got it meanwhile.
local function take_key(state)
  if state.queued and state.queued ~= id or unique == 'start' and (attempt > 0 or item.owed) then
    return
  end
  if state.former and state.former ~= id then
    lock_owe(KEYS[9], state.owed, state.former)
  end
  redis.call('HSET', KEYS[9], 'queued_id', id, 'queued_attempt', attempt, 'queued_until_ms', state.until_ms or now + ttl_ms,
    'label', ARGV[17], 'task', ARGV[18])
  redis.call('HDEL', KEYS[9], 'reserved_until_ms')
  return true
end

local state
if unique ~= 'none' then
  state = lock_read(KEYS[9], KEYS[10], now)
  if state.ended == id and attempt <= state.ended_attempt then
    item_remove(KEYS, id)
    return {'drop', 'ended'}
  elseif state.queued == id and attempt < state.attempt then
    item_remove(KEYS, id)
    return {'drop', 'retried'}
  end
  local holder = item.holder
  if not holder and ARGV[15] == '1' and state.queued and state.queued ~= id and attempt == 0 then
    holder = state.queued
    item.holder = holder
  end
  if holder and holder ~= id then
    if lock_settled(state, holder) then
      item_remove(KEYS, id)
      return {'join', holder, state.ended_state}
    elseif state.queued == holder or state.running == holder then
      return wait_for_lock(math.min(state.until_ms or state.ends_ms, state.ends_ms or state.until_ms))
    end
  end
  -- What was accepted before is never turned away for a later call: it runs when nobody does.
  item.owed = item.owed or attempt > 0 or lock_owes(state.owed, id)
  if state.queued and state.queued ~= id and not item.owed then
    if holder then
      item.holder = state.queued
      return wait_for_lock(state.until_ms)
    end
    item_remove(KEYS, id)
    return {'duplicate', state.queued}
  end
  if one_body and state.token and state.token ~= token then
    if state.running == id or now < state.since_ms + hung_ms then
      return wait_for_lock(now + lock_wait(state, hung_ms, now))
    end
    lease_release(KEYS[10], KEYS[11], state.token, now)
  end
end

local limited = ARGV[10] ~= ''
if limited then
  local limits = limits_read(KEYS, 13, ARGV, 21)
  item.costs = limits_costs(limits)
  item.order = item.order or redis.call('INCR', KEYS[5])
  if ARGV[14] ~= '1' and not item.stamp then
    local wait
    if redis.call('EXISTS', KEYS[7]) == 1 and not item.parkings then
      wait = math.max(1, tonumber(redis.call('ZSCORE', KEYS[3], ARGV[10]) or now) - now)
    else
      for _, one in ipairs(limits_blocked(limits, token, us)) do
        wait = math.max(wait or 1, one[2] < 0 and 1000 or math.ceil(one[2] / 1000))
      end
    end
    if wait then
      if message == '' and not woken then
        return {'message'}
      end
      park(KEYS, KEYS[7], ARGV[10], ARGV[19], id, item, message, now + wait, now)
    else
      item.stamp = string.format('%.0f', limits_charge(limits, token, us))
    end
    if state then
      -- Waiting for a limit it keeps its place in the queue, not the right to run.
      if take_key(state) then
        redis.call('HDEL', KEYS[9], 'taken_by')
        lock_keep(KEYS[9], now, state.until_ms or now + ttl_ms)
      end
    end
    if wait then
      return {'parked', wait, 'limited'}
    end
  end
  item.state, item.lane, item.spec = 'entered', ARGV[10], ARGV[19]
  item_write(KEYS, id, item)
  if message ~= '' then
    redis.call('HSET', KEYS[2], id, message)
  end
  redis.call('ZADD', KEYS[4], now + lease_ms, id)
elseif woken then
  item_remove(KEYS, id)
  redis.call('SET', KEYS[12], token, 'PX', BEGAN_MEMORY_MS)
end

local fence = 0
if state then
  local lock = KEYS[9]
  local until_ms = state.until_ms or now + ttl_ms
  if take_key(state) and unique == 'finish' then
    redis.call('HSET', lock, 'taken_by', token)
  end
  if one_body then
    local _, given = lease_acquire(KEYS[10], KEYS[11], token, 1, lease_ms, us)
    fence = given
    if state.token ~= token then
      redis.call('HSET', lock, 'running_since_ms', now)
    end
  end
  lock_keep(lock, now, until_ms)
end
return {'run', fence, item.holder or ''}
