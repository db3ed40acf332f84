-- What waits in each queue.
--
-- KEYS  see backlog.lua
-- returns  a list of {queue, address, waiting, seconds since a worker that consumes it was seen ('' = never)}
--@include celery_toolkit_core:clock
--@include celery_ranch:backlog
local found, now = {}, now_ms()
local addresses = redis.call('HGETALL', ADDRESSES)
for index = 1, #addresses, 2 do
  local queue = addresses[index]
  local seen = redis.call('HGET', SERVED, queue)
  found[#found + 1] = {
    queue, addresses[index + 1], tonumber(redis.call('HGET', QUEUED, queue) or 0),
    seen and tostring((now - tonumber(seen)) / 1000) or '',
  }
end
return found
