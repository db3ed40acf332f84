-- Bring messages in hand back to the heads of their lists, each exactly once. O(messages).
-- KEYS  1 the partition's hash, see take.lua; the lists stand in it
-- ARGV  numbers, the newest first
-- Returns how many were brought back; what a newer owner has adopted is not there
local restored = 0
for _, number in ipairs(ARGV) do
  local taken = redis.call('HGET', KEYS[1], number)
  if taken then
    redis.call('HDEL', KEYS[1], number)
    redis.call('RPUSH', string.match(taken, '^(.-)\n(.*)$'))
    restored = restored + 1
  end
end
return restored
