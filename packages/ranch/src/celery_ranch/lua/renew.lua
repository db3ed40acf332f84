-- Renew the leases of what one worker holds.
--
-- KEYS  see backlog.lua
-- ARGV  1 lease (ms), 2... entry id and token, alternating
-- returns  the entry ids that are not ours any more
--@include celery_toolkit_core:clock
--@include celery_ranch:backlog
redis.call('HDEL', REISSUED, '')
local ends = now_ms() + tonumber(ARGV[1])
local lost = {}
for index = 2, #ARGV, 2 do
  local entry = entry_of(ARGV[index])
  if entry and entry.token == ARGV[index + 1] then
    redis.call('ZADD', INFLIGHT, 'XX', ends, ARGV[index])
  else
    lost[#lost + 1] = ARGV[index]
  end
end
return lost
