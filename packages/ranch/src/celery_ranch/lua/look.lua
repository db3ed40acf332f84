-- What is known of one client.
--
-- KEYS  see backlog.lua
-- ARGV  1 client
-- returns  {} when it is unknown, else {label, weight, last claim (ms, 0 = never), waiting, in flight, cap ('' = none),
--           backlog limit ('' = none), paused, served, mean runtime (s, '' = unknown), profile, weight by function}
--@include celery_ranch:backlog
local client = ARGV[1]
if redis.call('HEXISTS', CLIENTS, client) == 0 then return {} end
local record = client_of(client)
return {
  record.k, tostring(record.w), record.t or 0, record.n, record.r, record.x or '', record.y or '', record.h and 1 or 0,
  record.s, record.m and tostring(record.m) or '', redis.call('HGET', PROFILES, client) or '',
  record.f and tostring(record.f) or '',
}
