--@include celery_heimdall:lock_life
-- Take a key for a task that is about to be published, or learn who has it. Data model: lock.lua.
-- KEYS  1 lock
-- ARGV  1 task id  2 attempt (0, or the number of the retry)  3 ttl in ms  4 label  5 reservation in ms  6 task name
--       7 1: a second turn of the same task does not prolong the lock (until = expiry)
-- Returns 1 (taken: to be confirmed) | 0 (it was the task's before, and needs no more)
--       | {holder's id, ms until the next one is accepted}
local now = now_ms()
local lock, id = KEYS[1], ARGV[1]
local until_ms = now + tonumber(ARGV[3])

local function take()
  redis.call('HSET', lock, 'queued_id', id, 'queued_attempt', ARGV[2], 'queued_until_ms', until_ms,
    'reserved_until_ms', now + tonumber(ARGV[5]), 'label', ARGV[4], 'task', ARGV[6])
end

-- The ordinary case, before anything is made ready that only the others need: of this key nothing is known.
if redis.call('EXISTS', lock) == 0 then
  take()
  lock_keep(lock, now, until_ms)
  return 1
end

--@include celery_heimdall:lock
local state = lock_read(lock, now)
if state.queued and state.queued ~= id then
  return {state.queued, state.until_ms - now}
end
if state.queued == id then
  -- A retry, or the same call again: it was accepted before and stays so whatever becomes of this publish.
  if ARGV[7] == '1' then
    until_ms = state.until_ms
  end
  local is_next = tonumber(ARGV[2]) > state.attempt
  local field = is_next and 'next_attempt' or 'queued_attempt'
  redis.call('HSET', lock, field, ARGV[2], 'queued_until_ms', math.max(until_ms, state.until_ms))
  redis.call('HDEL', lock, state.ended == id and 'ended_id' or 'taken_by', 'taken_by')
  lock_keep(lock, now, math.max(until_ms, state.until_ms), state.ends_ms)
  return (state.reserved or is_next) and 1 or 0
end
if state.former and state.former ~= id then
  lock_owe(lock, state.owed, state.former)
end
take()
redis.call('HDEL', lock, 'next_attempt')
if state.taken_by or state.ended == id then
  redis.call('HDEL', lock, state.ended == id and 'ended_id' or 'taken_by', 'taken_by')
end
lock_keep(lock, now, until_ms, state.ends_ms)
return 1
