-- Reports of a worker that has no claim to carry them; see settle.lua. Needs no memory to settle on a full server.
--
-- KEYS  see backlog.lua
-- ARGV  1 number of reports, 2... reports
-- returns  {late reports, tickets to issue (addressed)}
--@include celery_toolkit_core:clock
--@include celery_ranch:backlog
--@include celery_ranch:settle
redis.call('HDEL', REISSUED, '')
local wanted = {}
local late = settle(2, tonumber(ARGV[1]), now_ms(), wanted)
return { late, addressed(wanted) }
