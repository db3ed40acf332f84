-- Replace a client's tags and custom data, if they are still what the caller has read.
--
-- KEYS  see backlog.lua
-- ARGV  1 client, 2 label, 3 the profile as it was read ('' = none), 4 the new profile, 5 number of tags to take out,
--       6... tags to take out, then tags to put in
-- returns  1, or 0 when somebody else was faster
--@include celery_toolkit_core:clock
--@include celery_ranch:backlog
local client, label = ARGV[1], ARGV[2]
local current = redis.call('HGET', PROFILES, client) or ''
if current == ARGV[4] then return 1 end
if current ~= ARGV[3] then return 0 end
redis.call('HSET', PROFILES, client, ARGV[4])
for index = 6, #ARGV do
  local member = ARGV[index] .. ':' .. client
  if index < 6 + tonumber(ARGV[5]) then
    redis.call('ZREM', TAGGED, member)
  else
    redis.call('ZADD', TAGGED, 0, member)
  end
end
local record = client_of(client, label)
record.k = label
keep_client(client, record)
redis.call('ZADD', ACTIVE, now_ms(), client)
return 1
