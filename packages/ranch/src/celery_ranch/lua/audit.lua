-- Where every task that was ever submitted is, read at one moment.
--
-- KEYS  see backlog.lua
-- returns  {submitted, scheduled, waiting, in flight, dead, done, expired, revoked, abandoned, handed back, purged,
--           clients with work, entries stored, messages stored}
--@include celery_ranch:backlog
local function counter(name)
  return tonumber(redis.call('HGET', COUNTERS, name) or 0)
end
return {
  counter('submitted'), redis.call('ZCARD', SCHEDULED), redis.call('ZCARD', WAITING), redis.call('ZCARD', INFLIGHT),
  redis.call('ZCARD', DEAD), counter('done'), counter('expired'), counter('revoked'), counter('abandoned'),
  counter('handed_back'), counter('purged'), redis.call('ZCARD', READY) + redis.call('ZCARD', HELD),
  redis.call('HLEN', ENTRIES), redis.call('HLEN', MESSAGES),
}
