--@include celery_heimdall:lock_life
-- A worker has received a task: decide its lock and its limits together; grant all, or keep the message in a lane.
-- Data models: lock.lua, parking.lua, core's limits.lua.
-- KEYS  1-6 parking  7 lane of the limits  8 lane of the lock  9 lock  10 began  then the limits'
-- ARGV  1 task id  2 token  3 attempt  4 1: woken by us  5 queue  6 message, or '' when it is not at hand
--       7 1: its time has not come, decide the limits when the body starts  8 1: a duplicate waits and joins
--       9 id of the holder that it joins, or ''  10 label  11 permille to wait longer than expected
--       of the task: 12 lease in ms  13 unique: none, start, finish or expiry  14 1: one body at a time  15 ttl in ms
--       16 ms after which a body is hung  17 task name  18 the limits' strategies (parking.lua)
--       19 spec of the limits' lane  20 limits' lane, or ''  then the limits'
-- Returns fence | {'run', fence, expected holder's id} | {'parked', ms until the next look, 'locked' or 'limited'}
--       | {'join', holder's id, how it ended} | {'duplicate', holder's id} | {'drop', why}
--       | {'refused', place of the limit that ends the task, ms until it would have room}
--       | {'message'}: call again with the message
local us = now_us()
local now = math.floor(us / 1000)
local id, token, attempt = ARGV[1], ARGV[2], tonumber(ARGV[3])
local woken, lease_ms, unique, one_body = ARGV[4] == '1', tonumber(ARGV[12]), ARGV[13], ARGV[14] == '1'
local limited = ARGV[20] ~= ''

-- The ordinary case of a task without limits, before anything is made ready that only the others need: it was accepted
-- last, comes for the first time, and nobody has run since.
if unique ~= 'none' and not limited and not woken and attempt == 0 and ARGV[9] == '' then
  local lock = KEYS[9]
  local f = redis.call('HMGET', lock, 'queued_id', 'queued_until_ms', 'reserved_until_ms', 'queued_attempt', 'fence',
    'ended_id', 'taken_by', 'owed', 'running')
  local until_ms = tonumber(f[2] or 0)
  if f[1] == id and now < until_ms and (not f[3] or now < tonumber(f[3])) and f[4] == '0' and f[6] ~= id
    and not (f[7] or f[8] or f[9]) and not redis.call('HGET', KEYS[1], id) then
    if f[3] then
      redis.call('HDEL', lock, 'reserved_until_ms')
    end
    local fence, ends_ms = 0, now
    if one_body then
      fence, ends_ms = math.max(us, tonumber(f[5] or 0) + 1), now + lease_ms
      redis.call('HSET', lock, 'running', token, 'running_until_ms', ends_ms, 'running_since_ms', now, 'fence', fence,
        unique == 'finish' and 'taken_by' or 'running', token)
    end
    -- Whoever wrote until_ms has seen to it that the hash lives for as long as that asks.
    if ends_ms + ENDED_MEMORY_MS > 2 * until_ms - now then
      lock_keep(lock, now, until_ms, ends_ms)
    end
    return fence
  end
end

--@include celery_heimdall:parking
--@include celery_toolkit_core:limits
local ttl_ms, hung_ms, message = tonumber(ARGV[15]), tonumber(ARGV[16]), ARGV[6]
local item = item_read(KEYS, id)
if woken then
  if not item and began_read(KEYS[10], token) then
    -- The broker hands out again what began and never ended: an ordinary message by now.
    return {'message'}
  elseif not item or item.token ~= token or item.state == 'parked' then
    return {'drop', 'stale'}
  end
elseif item and item.state ~= 'entered' then
  return {'drop', 'kept'}
end
item = item or {}
woken_less(KEYS, item, now)
item.token, item.attempt, item.task = token, attempt, ARGV[17]
item.queue = woken and item.queue or ARGV[5]
if not item.holder and ARGV[9] ~= '' then
  item.holder = ARGV[9]
end

local function wait_for_lock(due_ms)
  if message == '' and not woken then
    return {'message'}
  end
  local spec = cjson.encode({keys = {KEYS[8], KEYS[9]}, hung_ms = hung_ms, label = ARGV[10]})
  park(KEYS, KEYS[8], lane_of(KEYS[8]), spec, id, item, message, due_ms, now)
  return {'parked', due_ms - now, 'locked'}
end

local state, lock_write
if unique ~= 'none' then
--@include celery_heimdall:lock
  state = lock_read(KEYS[9], now)
  if state.ended == id and attempt <= state.ended_attempt then
    item_remove(KEYS, id)
    return {'drop', 'ended'}
  elseif state.queued == id and attempt < state.attempt then
    item_remove(KEYS, id)
    return {'drop', 'retried'}
  end
  local holder = item.holder
  if not holder and ARGV[8] == '1' and state.queued and state.queued ~= id and attempt == 0 then
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
    -- Its worker will find the lock lost.
    redis.call('HDEL', KEYS[9], 'running', 'running_until_ms', 'running_since_ms')
    state.token, state.ends_ms = nil, nil
  end

  -- Write down who runs until when with which fence ('' for nobody yet), and whose the key is, unless a later call has got
  -- it meanwhile.
  function lock_write(runner, fence)
    local lock, until_ms, ends_ms = KEYS[9], state.until_ms or now + ttl_ms, state.ends_ms
    local fields = {}
    if not (state.queued and state.queued ~= id or unique == 'start' and (attempt > 0 or item.owed)) then
      if state.former and state.former ~= id then
        lock_owe(lock, state.owed, state.former)
      end
      if state.queued ~= id or state.attempt ~= attempt then
        redis.call('HDEL', lock, 'next_attempt')
        fields = {'queued_id', id, 'queued_attempt', attempt, 'queued_until_ms', until_ms, 'label', ARGV[10], 'task', ARGV[17]}
      end
      if state.unconfirmed then
        redis.call('HDEL', lock, 'reserved_until_ms')
      end
      if runner ~= '' and unique == 'finish' then
        fields[#fields + 1] = 'taken_by'
        fields[#fields + 1] = runner
      elseif runner == '' and state.taken_by then
        redis.call('HDEL', lock, 'taken_by')
      end
    end
    if fence then
      ends_ms = now + lease_ms
      local since_ms = state.token == token and state.since_ms or now
      for _, value in ipairs({'running', runner, 'running_until_ms', ends_ms, 'running_since_ms', since_ms, 'fence', fence}) do
        fields[#fields + 1] = value
      end
    end
    if fields[1] then
      redis.call('HSET', lock, unpack(fields))
    end
    lock_keep(lock, now, until_ms, ends_ms)
  end
end

if limited then
  local limits = limits_read(KEYS, 11, ARGV, 21)
  item.costs = limits_costs(limits)
  item.order = item.order or redis.call('INCR', KEYS[5])
  if ARGV[7] ~= '1' and not item.stamp then
    local wait, ends, look
    if redis.call('EXISTS', KEYS[7]) == 1 and not item.parkings then
      local due = tonumber(redis.call('ZSCORE', KEYS[3], ARGV[20]) or now)
      wait, ends, look = limits_refusal({{1, math.max(0, due - now) * 1000}}, ARGV[18], limits)
    else
      wait, ends, look = limits_refusal(limits_blocked(limits, token, us), ARGV[18], limits)
    end
    if ends then
      item_remove(KEYS, id)
      if woken then
        began_write(KEYS[10], token, BEGAN_MEMORY_MS)
      end
      return {'refused', ends, wait}
    end
    if wait then
      if message == '' and not woken then
        return {'message'}
      end
      look = math.ceil(look * (1 + ARGV[11] / 1000))
      park(KEYS, KEYS[7], ARGV[20], ARGV[19], id, item, message, now + look, now)
      if state then
        -- Waiting for a limit it keeps its place in the queue, not the right to run.
        lock_write('', nil)
      end
      return {'parked', look, 'limited'}
    end
    item.stamp = string.format('%.0f', limits_charge(limits, token, us))
  end
  item.state, item.lane, item.spec = 'entered', ARGV[20], ARGV[19]
  item_write(KEYS, id, item)
  if message ~= '' then
    redis.call('HSET', KEYS[2], id, message)
  end
  redis.call('ZADD', KEYS[4], now + lease_ms, id)
elseif woken then
  item_remove(KEYS, id)
  began_write(KEYS[10], token, BEGAN_MEMORY_MS)
end

local fence
if state then
  if one_body then
    fence = state.token == token and state.fence or math.max(us, state.fence + 1)
  end
  lock_write(token, fence)
end
return item.holder and {'run', fence or 0, item.holder} or fence or 0
