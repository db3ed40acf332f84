-- Bring messages in hand back to the heads of their lists, each exactly once. O(messages).
-- KEYS  1 the partition's hash, see take.lua; the lists stand in it
-- ARGV  1 fence, 2 the last number that the caller has received, 3... numbers, the newest first
-- Returns how many were brought back; what a newer owner has adopted is not there
local restored = 0
local function restore(number)
  local taken = redis.call('HGET', KEYS[1], number)
  if taken then
    redis.call('HDEL', KEYS[1], number)
    redis.call('RPUSH', string.match(taken, '^(.-)\n(.*)$'))
    restored = restored + 1
  end
end

local known = redis.call('HMGET', KEYS[1], 'fence', 'last')
if known[1] == ARGV[1] then
  -- What an answer, which was lost on its way, had brought is younger: it must not get in front.
  for number = tonumber(known[2] or 0), tonumber(ARGV[2]) + 1, -1 do
    restore(number)
  end
end
for index = 3, #ARGV do
  restore(ARGV[index])
end
return restored
