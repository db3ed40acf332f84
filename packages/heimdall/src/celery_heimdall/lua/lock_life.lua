--@include celery_toolkit_core:clock
-- How long the hash of a lock (lock.lua) lives: until one more ttl after queued_until_ms, at the earliest ENDED_MEMORY_MS
-- after the end of the lease and the last change. Include file.
local ENDED_MEMORY_MS = 600000

-- Let the hash live: `until_ms` is its queued_until_ms, `ends_ms` the end of the lease, each if there is one.
local function lock_keep(lock, now, until_ms, ends_ms)
  redis.call('PEXPIREAT', lock, math.max(2 * (until_ms or 0) - now, math.max(now, ends_ms or 0) + ENDED_MEMORY_MS))
end
