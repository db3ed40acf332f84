-- The messages of reservations were published: from now on each lock lasts as long as the user said. Model: lock.lua.
-- KEYS  the locks
-- ARGV  the task id of each
-- Returns how many were confirmed; another task has the key of the rest, or nobody
local confirmed = 0
for i, lock in ipairs(KEYS) do
  if redis.call('HGET', lock, 'queued_id') == ARGV[i] then
    redis.call('HDEL', lock, 'reserved_until_ms')
    confirmed = confirmed + 1
  end
end
return confirmed
