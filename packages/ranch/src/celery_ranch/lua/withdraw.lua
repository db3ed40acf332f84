-- Take back a task that was put into the backlog a moment ago, unless a worker has it already.
--
-- KEYS  see backlog.lua
-- ARGV  1 entry id
-- returns  1 when it was taken back, else 0
--@include celery_toolkit_core:clock
--@include celery_ranch:backlog
redis.call('HDEL', REISSUED, '')
local id, now = ARGV[1], now_ms()
if redis.call('ZSCORE', ENDED, id .. ':withdrawn') then return 1 end -- asked again, because the answer was lost
local entry = entry_of(id)
if not entry then return 0 end
local waited = redis.call('ZREM', WAITING, waiting_member(id, entry)) == 1
if not waited and redis.call('ZREM', SCHEDULED, id) == 0 then return 0 end
local record = client_of(entry.c)
record.n = math.max(0, record.n - 1)
bump('purged')
forget(id, now)
redis.call('ZADD', ENDED, now, id .. ':withdrawn')
if waited then
  redis.call('HINCRBY', QUEUED, entry.q, -1)
  place(entry.q, entry.c, record, turn_of(entry.q, entry.c))
end
rest(entry.c, record, now)
keep_client(entry.c, record)
return 1
