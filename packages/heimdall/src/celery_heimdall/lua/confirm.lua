-- The messages of reservations were published: from now on each lock lasts as long as the user said. Model: lock.lua.
-- KEYS  the locks
-- ARGV  for each: the task's id, the number of its attempt
-- Returns how many were confirmed; another task has the key of the rest, or nobody
local confirmed = 0
for i, lock in ipairs(KEYS) do
  if redis.call('HGET', lock, 'queued_id') == ARGV[2 * i - 1] then
    local attempt = ARGV[2 * i]
    redis.call('HDEL', lock, 'reserved_until_ms')
    if attempt ~= '0' and redis.call('HGET', lock, 'next_attempt') == attempt then
      redis.call('HDEL', lock, 'next_attempt')
      redis.call('HSET', lock, 'queued_attempt', attempt)
    end
    confirmed = confirmed + 1
  end
end
return confirmed
