-- Replace a client's tags and custom data, if they are still what the caller has read.
--
-- KEYS  see backlog.lua
-- ARGV  1 client, 2 label, 3 the profile as it was read ('' = none), 4 the new profile, 5... the digests of all its tags
-- returns  1, or 0 when somebody else was faster
--@include celery_toolkit_core:clock
--@include celery_ranch:backlog
local client, label = ARGV[1], ARGV[2]
local current = redis.call('HGET', PROFILES, client) or ''
if current == ARGV[4] then return 1 end
if current ~= ARGV[3] then return 0 end
redis.call('HSET', PROFILES, client, ARGV[4])
local record = client_of(client, label)
for _, tag in ipairs(record.g or {}) do redis.call('ZREM', TAGGED, tag .. ':' .. client) end
record.k, record.g = label, {}
for index = 5, #ARGV do
  record.g[#record.g + 1] = ARGV[index]
  redis.call('ZADD', TAGGED, 0, ARGV[index] .. ':' .. client)
end
keep_client(client, record)
redis.call('ZADD', ACTIVE, now_ms(), client)
return 1
