-- Whether another control has taken a task away, and why.
--
-- KEYS  see backlog.lua
-- ARGV  1 task id
-- returns  {} or {label of its client, why ('' = not said), since (ms)}
--@include celery_ranch:backlog
local raw = redis.call('HGET', AWAY, ARGV[1])
if not raw then return {} end
local away = cmsgpack.unpack(raw)
return { client_of(away.c).k, away.why, redis.call('ZSCORE', DEPARTED, ARGV[1]) or '0' }
