-- A person's decision about dead entries.
--
-- KEYS  see backlog.lua
-- ARGV  1 'retry' (to the head of their client, as though never tried) or 'drop', 2... entry ids
-- returns  {number of entries, tickets to issue (addressed)}; ids that are not dead, or unreadable ones to be retried,
--          are left alone
--@include celery_toolkit_core:clock
--@include celery_ranch:backlog
local now, decided, wanted = now_ms(), 0, {}
for index = 2, #ARGV do
  local id = ARGV[index]
  local entry = entry_of(id)
  local there = redis.call('ZSCORE', DEAD, id) or redis.call('ZSCORE', QUARANTINE, id)
  if there and (entry or ARGV[1] == 'drop') then
    redis.call('ZREM', DEAD, id)
    redis.call('ZREM', QUARANTINE, id)
    decided = decided + 1
    if ARGV[1] == 'drop' then
      forget(id, now)
      bump('purged')
    else
      local record = client_of(entry.c)
      entry.a, entry.why = 0, nil
      record.n = record.n + 1
      keep_entry(id, entry)
      keep_client(entry.c, record)
      line_up(id, entry, record)
      wanted[entry.q] = (wanted[entry.q] or 0) + 1
    end
  end
end
return { decided, addressed(wanted) }
