--@include celery_heimdall:lock_life
-- The lock of one key of unique tasks. Include file.
--
-- Data model of one lock: one key
--   lock     HASH  queued_id, queued_attempt   the task that was accepted last and whose end frees the key
--                  next_attempt                the number of a retry that is about to be published. Only when it is confirmed
--                                              does a copy of the attempt before count as a late one: a retry that
--                                              could not be sent leaves the task to that copy
--                  queued_until_ms             from here on the next one is accepted, whatever became of this one
--                  reserved_until_ms           there from the reservation until the publish is confirmed: the lock ends
--                                              here when the producer died between the two
--                  taken_by                    the token that runs the queued task: the lock then ends with that lease,
--                                              unless it is kept until its expiry
--                  running                     who runs the body, by a token `<task id>/<delivery>`, until its lease ends
--                  running_until_ms            the end of that lease
--                  running_since_ms            since when the body runs
--                  fence                       the last fence given out. The next is max(fence + 1, now in microseconds), so
--                                              that it rises even when the hash has expired or is lost; it is kept only
--                                              to bridge a clock that steps back
--                  ended_id, ended_state       the task that ended last, so that its late copies are known as such
--                  ended_attempt
--                  owed                        ids, each between line ends: accepted tasks that lost the key to a later one
--                                              before they had ended (their worker died, or the ttl passed). When they
--                                              come back they are no duplicates: they run when no body does
--                  label, task                 for people
-- When the hash expires: lock_life.lua.
local OWED_MOST = 32

local function token_id(token)
  return token and token:match('^(.*)/[^/]*$')
end

-- What holds at `now`: {queued = id, until_ms, attempt, reserved, token, running = id, ends_ms, since_ms,
-- former = id that was accepted and has neither the key any more nor ended, owed, ended..., fence}; and as it is written,
-- whether it holds or not: {queued_id, queued_until_ms, unconfirmed, taken_by, runner = token}
local function lock_read(lock, now)
  local f = redis.call('HMGET', lock, 'queued_id', 'queued_until_ms', 'reserved_until_ms', 'queued_attempt',
    'running_since_ms', 'ended_id', 'ended_state', 'ended_attempt', 'taken_by', 'owed', 'running', 'running_until_ms',
    'fence')
  local state = {
    ended = f[6], ended_state = f[7] or '', ended_attempt = tonumber(f[8] or 0), owed = f[10] or '',
    fence = tonumber(f[13] or 0), queued_id = f[1], queued_until_ms = f[2], unconfirmed = f[3], taken_by = f[9],
    runner = f[11],
  }
  if f[11] and tonumber(f[12]) > now then
    state.token, state.ends_ms, state.since_ms = f[11], tonumber(f[12]), tonumber(f[5])
    state.running = token_id(f[11])
  end
  local until_ms, reserved_ms, taken = tonumber(f[2] or 0), tonumber(f[3] or nil), f[9]
  if f[1] and now < until_ms and not (reserved_ms and now >= reserved_ms) and (not taken or taken == state.token) then
    state.queued, state.until_ms, state.attempt = f[1], until_ms, tonumber(f[4] or 0)
    state.reserved = reserved_ms
  elseif f[1] and not reserved_ms and f[1] ~= f[6] then
    state.former = f[1]
  end
  return state
end

local function lock_owes(owed, id)
  return owed:find('\n' .. id .. '\n', 1, true) ~= nil
end

-- Remember that `id` was accepted; the oldest of too many is forgotten.
local function lock_owe(lock, owed, id)
  if not lock_owes(owed, id) then
    owed = (owed == '' and '\n' or owed) .. id .. '\n'
    local _, count = owed:gsub('\n', '')
    if count > OWED_MOST + 1 then
      owed = owed:sub((owed:find('\n', 2, true)))
    end
    redis.call('HSET', lock, 'owed', owed)
  end
end

local function lock_pay(lock, owed, id)
  if lock_owes(owed, id) then
    local from, to = owed:find('\n' .. id .. '\n', 1, true)
    owed = owed:sub(1, from) .. owed:sub(to + 1)
    if owed == '\n' then
      redis.call('HDEL', lock, 'owed')
    else
      redis.call('HSET', lock, 'owed', owed)
    end
  end
end

-- The holder's end can be shared: it has ended in a way that left a result.
local function lock_settled(state, holder)
  return state.ended == holder and state.running ~= holder
    and (state.ended_state == 'success' or state.ended_state == 'failure')
end

-- Milliseconds until a waiting task should look again: when the lease ends, or the body counts as hung.
local function lock_wait(state, hung_ms, now)
  return math.max(1, math.min(state.ends_ms, state.since_ms + hung_ms) - now)
end
