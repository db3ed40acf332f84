-- Move messages of a queue into other queues. O(messages), as they lie at the list's head.
-- A message that is no longer there (somebody took it) is passed over: a replay moves nothing twice.
-- The keys are kombu's lists and share no hash tag: kombu knows no cluster.
-- KEYS  1 the queue, 2... the queues to move to
-- ARGV  for each message: number of its new queue among KEYS, message as it is there, message with its new address
-- Returns how many were moved
local moved = 0
for index = 1, #ARGV, 3 do
  if redis.call('LREM', KEYS[1], 1, ARGV[index + 1]) == 1 then
    redis.call('RPUSH', KEYS[tonumber(ARGV[index])], ARGV[index + 2])
    moved = moved + 1
  end
end
return moved
