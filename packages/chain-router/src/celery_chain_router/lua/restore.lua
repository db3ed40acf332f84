-- Bring messages that are not acknowledged back to the heads of their lists, each exactly once. O(messages).
-- The keys are kombu's and share no hash tag: kombu knows no cluster.
-- KEYS  1 kombu's hash of unacknowledged messages, 2 its index, 3 HASH partition -> highest fence that adopted messages,
--       4... lists
-- ARGV  1 partition, 2 fence under which its messages are adopted ('' when their own worker brings them back), then for
--       each message, the newest first: delivery tag, number of its list, message
-- Returns how many were brought back, -1 when the partition has been adopted under a higher fence
local FENCE_MEMORY_MS = 7 * 24 * 3600 * 1000
if ARGV[2] ~= '' then
  if tonumber(redis.call('HGET', KEYS[3], ARGV[1]) or 0) > tonumber(ARGV[2]) then
    return -1
  end
  redis.call('HSET', KEYS[3], ARGV[1], ARGV[2])
  redis.call('PEXPIRE', KEYS[3], FENCE_MEMORY_MS)
end
local restored = 0
for index = 3, #ARGV, 3 do
  if redis.call('HDEL', KEYS[1], ARGV[index]) == 1 then
    redis.call('ZREM', KEYS[2], ARGV[index])
    redis.call('RPUSH', KEYS[3 + tonumber(ARGV[index + 1])], ARGV[index + 2])
    restored = restored + 1
  end
end
return restored
