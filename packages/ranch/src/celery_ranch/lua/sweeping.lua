-- What happens to an entry whose lease has ended: its worker is dead or frozen. Included by claim.lua and tend.lua,
-- after settle.lua.
--
-- An early-acknowledged body that had begun is not repeated (Celery's own contract): abandoned. After `most` attempts
-- the entry is dead. Otherwise it returns to the head of its client's line and the turn is given back.
local function recover(id, entry, now, most, wanted)
  if not entry then
    redis.call('ZREM', INFLIGHT, id)
    bury(id, nil, 'quarantined', now)
    return 'quarantined'
  end
  local started = entry.started
  local record = client_of(entry.c)
  take_off(id, entry)
  record.r = math.max(0, record.r - 1)
  entry.a = entry.a + 1
  local fate
  if started then
    fate = 'abandoned'
    bump('abandoned')
    forget(id, now)
  elseif entry.a >= most then
    fate = 'dead'
    bury(id, entry, 'attempts', now)
  else
    fate = 'returned'
    record.n = record.n + 1
    keep_entry(id, entry)
    refund(entry, record)
    line_up(id, entry, record)
    wanted[entry.q] = (wanted[entry.q] or 0) + 1
  end
  landed(entry, record, now, wanted)
  return fate
end
