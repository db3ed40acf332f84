-- What is known of some clients.
--
-- KEYS  see backlog.lua
-- ARGV  1... clients
-- returns  for each that is known: {label, weight, last claim (ms, 0 = never), waiting, in flight, cap ('' = none),
--          backlog limit ('' = none), paused, draining, served, mean runtime (s, '' = unknown), weight by function
--          ('' = none), client, profile}
--@include celery_ranch:backlog
local found = {}
local function text(value)
  return value and tostring(value) or ''
end
for _, client in ipairs(ARGV) do
  if redis.call('HEXISTS', CLIENTS, client) == 1 then
    local record = client_of(client)
    found[#found + 1] = {
      record.k, tostring(record.w), record.t or 0, record.n, record.r, text(record.x), text(record.y),
      record.h and 1 or 0, record.d and 1 or 0, record.s, text(record.m), text(record.f), client,
      redis.call('HGET', PROFILES, client) or '',
    }
  end
end
return found
