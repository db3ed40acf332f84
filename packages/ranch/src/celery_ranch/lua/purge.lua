-- Throw away what one client has waiting in some queues; what is in flight or scheduled stays.
--
-- KEYS  see backlog.lua
-- ARGV  1 client, 2 most entries per run, 3... queues
-- returns  the messages that were thrown away ('' for one that was not stored any more)
--@include celery_toolkit_core:clock
--@include celery_ranch:backlog
local client, most, purged = ARGV[1], tonumber(ARGV[2]), {}
local now = now_ms()
local record = client_of(client)
for index = 3, #ARGV do
  local queue = ARGV[index]
  local prefix = queue .. ':' .. client
  local members =
    redis.call('ZRANGEBYLEX', WAITING, '[' .. prefix .. ':', '(' .. prefix .. ';', 'LIMIT', 0, most - #purged)
  for _, member in ipairs(members) do
    local id = string.sub(member, -32)
    purged[#purged + 1] = redis.call('HGET', MESSAGES, id) or ''
    redis.call('ZREM', WAITING, member)
    forget(id, now)
  end
  if #members > 0 then
    redis.call('HINCRBY', QUEUED, queue, -#members)
    bump('purged', #members)
    record.n = math.max(0, record.n - #members)
    place(queue, client, record, turn_of(queue, client))
  end
  if #purged >= most then break end
end
if #purged > 0 then
  rest(client, record, now)
  keep_client(client, record)
end
return purged
