-- Become the owner of partitions on the broker: what former owners had in hand goes back to the heads of its lists, in
-- its order, marked as delivered before. O(messages in hand, sorted).
-- KEYS  for each partition its hash, see take.lua; the lists stand in the hash
-- ARGV  for each partition: fence, numbers that the caller has in hand itself, as ' 3 5 '
-- Returns {messages brought back, last number, ...}; -1 where the partition has a newer owner
local MEMORY_MS = 7 * 24 * 3600 * 1000
local MARK = '{"redelivered": true, '
local answer = {}
for index, hash in ipairs(KEYS) do
  local fence, mine = ARGV[index * 2 - 1], ARGV[index * 2]
  local known = redis.call('HMGET', hash, 'fence', 'last')
  if tonumber(known[1] or 0) > tonumber(fence) then
    answer[#answer + 1] = -1
  else
    local numbers = {}
    for _, field in ipairs(redis.call('HKEYS', hash)) do
      local number = tonumber(field)
      if number and not string.find(mine, ' ' .. field .. ' ', 1, true) then
        numbers[#numbers + 1] = number
      end
    end
    -- From the newest to the oldest, each to the front: the oldest is then the next to be taken.
    table.sort(numbers, function(one, other) return one > other end)
    for _, number in ipairs(numbers) do
      local list, message = string.match(redis.call('HGET', hash, number), '^(.-)\n(.*)$')
      redis.call('HDEL', hash, number)
      if string.sub(message, 1, #MARK) ~= MARK then
        message = MARK .. string.sub(message, 2)
      end
      redis.call('RPUSH', list, message)
    end
    redis.call('HSET', hash, 'fence', fence, 'last', known[2] or 0)
    redis.call('PEXPIRE', hash, MEMORY_MS)
    answer[#answer + 1] = #numbers
  end
  answer[#answer + 1] = tonumber(known[2] or 0)
end
return answer
