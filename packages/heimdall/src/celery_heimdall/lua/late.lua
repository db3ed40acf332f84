--@include celery_toolkit_core:clock
-- A body starts long after its worker received the task: whether somebody has taken it over meanwhile. Its process was
-- stopped, say, and its message given to another worker. Data model: lock.lua.
-- KEYS  1 lock
-- ARGV  1 task id  2 token  3 attempt
-- Returns 1 (it runs, has ended, or was tried again elsewhere) | 0
local id, token, attempt = ARGV[1], ARGV[2], tonumber(ARGV[3])
local f = redis.call('HMGET', KEYS[1], 'running', 'running_until_ms', 'ended_id', 'ended_attempt', 'queued_id',
  'queued_attempt')
if f[1] == token then
  return 0
end
local runs = f[1] and f[1]:match('^(.*)/[^/]*$') == id and tonumber(f[2]) > now_ms()
local ended = f[3] == id and attempt <= tonumber(f[4] or 0)
local retried = f[5] == id and attempt < tonumber(f[6] or 0)
return (runs or ended or retried) and 1 or 0
