--@include celery_heimdall:lock
--@include celery_heimdall:parking
--@include celery_toolkit_core:limits
-- A worker has received a task: decide its lock and its limits together; grant all, or keep the message in a lane.
-- Data models: lock.lua, parking.lua, core's limits.lua.
-- KEYS  1-6 parking  7 lane of the limits  8 lane of the lock  9 lock  10 began  then the limits'
-- ARGV  1 task id  2 token  3 attempt  4 1: woken by us  5 lease in ms
--       6 unique: none, start, finish or expiry  7 1: one body at a time  8 ttl in ms  9 ms after which a body is hung
--       10 limits' lane, or ''  11 lock's lane  12 queue  13 message, or '' when it is not at hand
--       14 1: its time has not come, decide the limits when the body starts  15 1: a duplicate waits and joins
--       16 id of the holder that it joins, or ''  17 label  18 task name  19 spec of the limits' lane
--       20 spec of the lock's lane  21 the limits' strategies (parking.lua)  22 permille to wait longer than expected
--       then the limits'
-- Returns {'run', fence, expected holder's id or ''} | {'parked', ms until the next look, 'locked' or 'limited'}
--       | {'join', holder's id, how it ended} | {'duplicate', holder's id} | {'drop', why}
--       | {'refused', place of the limit that ends the task, ms until it would have room}
--       | {'message'}: call again with the message
local us = now_us()
local now = math.floor(us / 1000)
local id, token, attempt = ARGV[1], ARGV[2], tonumber(ARGV[3])
local woken, lease_ms, unique = ARGV[4] == '1', tonumber(ARGV[5]), ARGV[6]
local one_body, ttl_ms, hung_ms = ARGV[7] == '1', tonumber(ARGV[8]), tonumber(ARGV[9])
local message = ARGV[13]

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
item.token, item.attempt, item.task = token, attempt, ARGV[18]
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

local state
if unique ~= 'none' then
  state = lock_read(KEYS[9], now)
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
    -- Its worker will find the lock lost.
    redis.call('HDEL', KEYS[9], 'running', 'running_until_ms', 'running_since_ms')
    state.token, state.ends_ms = nil, nil
  end
end

-- Write down who runs until when with which fence ('' for nobody yet), and whose the key is, unless a later call has got
-- it meanwhile.
local function lock_write(runner, fence)
  local lock, until_ms, ends_ms = KEYS[9], state.until_ms or now + ttl_ms, state.ends_ms
  local fields = {}
  if not (state.queued and state.queued ~= id or unique == 'start' and (attempt > 0 or item.owed)) then
    if state.former and state.former ~= id then
      lock_owe(lock, state.owed, state.former)
    end
    if state.queued ~= id or state.attempt ~= attempt then
      fields = {'queued_id', id, 'queued_attempt', attempt, 'queued_until_ms', until_ms, 'label', ARGV[17], 'task', ARGV[18]}
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

local limited = ARGV[10] ~= ''
if limited then
  local limits = limits_read(KEYS, 11, ARGV, 23)
  item.costs = limits_costs(limits)
  item.order = item.order or redis.call('INCR', KEYS[5])
  if ARGV[14] ~= '1' and not item.stamp then
    local wait, ends, look
    if redis.call('EXISTS', KEYS[7]) == 1 and not item.parkings then
      local due = tonumber(redis.call('ZSCORE', KEYS[3], ARGV[10]) or now)
      wait, ends, look = limits_refusal({{1, math.max(0, due - now) * 1000}}, ARGV[21], limits)
    else
      wait, ends, look = limits_refusal(limits_blocked(limits, token, us), ARGV[21], limits)
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
      look = math.ceil(look * (1 + ARGV[22] / 1000))
      park(KEYS, KEYS[7], ARGV[10], ARGV[19], id, item, message, now + look, now)
      if state then
        -- Waiting for a limit it keeps its place in the queue, not the right to run.
        lock_write('', nil)
      end
      return {'parked', look, 'limited'}
    end
    item.stamp = string.format('%.0f', limits_charge(limits, token, us))
  end
  item.state, item.lane, item.spec = 'entered', ARGV[10], ARGV[19]
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
return {'run', fence or 0, item.holder or ''}
