-- Where some entries are, for a person who asks.
--
-- KEYS  see backlog.lua
-- ARGV  1 most entries when no ids are given, 2... entry ids; without any, the dead ones, oldest first
-- returns  a list of {entry id, task id, task name, client, address, attempts, enqueued (ms), state, a, b}
--   waiting      a = entries of the client before it, b = clients before its own
--   unserved     no worker consumes its queue; a as above, b = when one was seen last (ms, '' = never)
--   paused       a as above
--   capped       a as above
--   scheduled    a = due (ms)
--   in flight    a = the lease ends (ms), b = 'over' when it has: its worker died, and none has put it back yet
--   dead         a = since (ms), b = why
--   quarantined  a = since (ms)
--   gone         it has ended meanwhile
--@include celery_toolkit_core:clock
--@include celery_ranch:backlog
-- A worker says once a second which queues it consumes; one that is busy may say it late.
local UNSERVED_MS = 15000

local ids = {}
for index = 2, #ARGV do ids[#ids + 1] = ARGV[index] end
if #ids == 0 then
  for _, key in ipairs({ DEAD, QUARANTINE }) do
    for _, id in ipairs(redis.call('ZRANGE', key, 0, tonumber(ARGV[1]) - 1)) do ids[#ids + 1] = id end
  end
end
local now = now_ms()

local function state_of(id, entry)
  local since = redis.call('ZSCORE', QUARANTINE, id)
  if since then return 'quarantined', since, '' end
  since = redis.call('ZSCORE', DEAD, id)
  if since then return 'dead', since, entry and entry.why or '' end
  if not entry then return 'gone', '', '' end
  local lease = redis.call('ZSCORE', INFLIGHT, id)
  if lease then return 'in flight', lease, tonumber(lease) <= now and 'over' or '' end
  local due = redis.call('ZSCORE', SCHEDULED, id)
  if due then return 'scheduled', due, '' end
  local prefix = entry.q .. ':' .. entry.c
  local before = redis.call('ZLEXCOUNT', WAITING, '[' .. prefix .. ':', '(' .. waiting_member(id, entry))
  local record, turn = client_of(entry.c), turn_of(entry.q, entry.c)
  if record.h then return 'paused', before, '' end
  if blocked(record) then return 'capped', before, '' end
  local seen = redis.call('HGET', SERVED, entry.q)
  if not seen or now - tonumber(seen) > UNSERVED_MS then return 'unserved', before, seen or '' end
  return 'waiting', before,
    redis.call('ZLEXCOUNT', READY, '[' .. entry.q .. ':', '(' .. ready_member(entry.q, entry.c, turn))
end

local found = {}
for _, id in ipairs(ids) do
  local entry = entry_of(id)
  local state, a, b = state_of(id, entry)
  local known = entry or {}
  found[#found + 1] = {
    id, known.id or '', known.name or '', entry and client_of(entry.c).k or '',
    entry and redis.call('HGET', ADDRESSES, entry.q) or '', known.a or 0, known.at or 0, state, tostring(a), tostring(b),
  }
end
return found
