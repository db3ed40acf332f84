-- Where every task that was ever submitted is, read at one moment; and what else is counted.
--
-- KEYS  see backlog.lua
-- returns  name, number, name, number, ...
--@include celery_ranch:backlog
local found = {
  'scheduled', redis.call('ZCARD', SCHEDULED), 'waiting', redis.call('ZCARD', WAITING),
  'in_flight', redis.call('ZCARD', INFLIGHT), 'dead', redis.call('ZCARD', DEAD),
  'quarantined', redis.call('ZCARD', QUARANTINE),
  'clients', redis.call('ZCARD', READY) + redis.call('ZCARD', HELD),
  'entries', redis.call('HLEN', ENTRIES), 'messages', redis.call('HLEN', MESSAGES),
}
for _, name in ipairs({
  'submitted', 'done', 'expired', 'revoked', 'abandoned', 'handed_back', 'purged', 'weight_failures',
}) do
  found[#found + 1] = name
  found[#found + 1] = tonumber(redis.call('HGET', COUNTERS, name) or 0)
end
return found
