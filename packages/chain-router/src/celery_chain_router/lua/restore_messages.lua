-- Put messages that a dead consumer had in hand back into queues. O(messages).
-- One that is no longer in hand (it was acknowledged, or somebody else restored it) is passed over: a replay restores
-- nothing twice. The keys are kombu's and share no hash tag: kombu knows no cluster.
-- KEYS  1 HASH delivery tag -> message, 2 ZSET delivery tag -> since when, 3... the queues
-- ARGV  for each message: delivery tag, number of its queue among KEYS, message
-- Returns how many were restored
local restored = 0
for index = 1, #ARGV, 3 do
  if redis.call('HDEL', KEYS[1], ARGV[index]) == 1 then
    redis.call('ZREM', KEYS[2], ARGV[index])
    redis.call('RPUSH', KEYS[tonumber(ARGV[index + 1])], ARGV[index + 2])
    restored = restored + 1
  end
end
return restored
