-- Take messages out of partitions' queues, and note them as in hand in the same step: whenever a worker is killed,
-- a message is in a list or in a hash. O(lists + messages).
-- Data model, on the broker; kombu's lists and ours share no hash tag: kombu knows no cluster.
--   <queue> and so on  LIST  kombu's: the newest on the left, taken from the right; one for each priority
--   <queue>.taken      HASH  number -> "<list>\n<message>": in hand of the partition's owner, numbered in the order of
--                            their taking; 'last' -> the highest number so far; 'fence' -> that of the owner
-- KEYS  for each partition: its hash, then its lists in the order in which they are emptied
-- ARGV  1 how many messages in all, then for each partition: fence, the last number that the caller has received, how
--       many messages at most, number of lists
-- Returns {index of the partition, number, list, message, ...}; number 0: the partition has a newer owner. What a former
--         answer, which was lost on its way, had brought comes again.
local MEMORY_MS = 7 * 24 * 3600 * 1000
local room, answer, places, at = tonumber(ARGV[1]), {}, {}, 0

local function give(index, number, list, message)
  for _, value in ipairs({index, number, list, message}) do
    answer[#answer + 1] = value
  end
  room = room - 1
end

for index = 1, (#ARGV - 1) / 4 do
  local fence, received, most, lists = unpack(ARGV, index * 4 - 2, index * 4 + 1)
  local hash = KEYS[at + 1]
  local known = redis.call('HMGET', hash, 'fence', 'last')
  local last = tonumber(known[2] or 0)
  if tonumber(known[1] or 0) > tonumber(fence) then
    give(index, 0, '', '')
  else
    for number = tonumber(received) + 1, last do
      local taken = redis.call('HGET', hash, number)
      if taken then
        give(index, number, string.match(taken, '^(.-)\n(.*)$'))
      end
    end
    places[#places + 1] =
      {index = index, hash = hash, fence = fence, last = last, most = tonumber(most), from = at + 2, to = at + 1 + lists}
  end
  at = at + 1 + lists
end

local function take_one(place)
  for list = place.from, place.to do
    local message = redis.call('RPOP', KEYS[list])
    if message then
      place.last, place.most, place.changed = place.last + 1, place.most - 1, true
      redis.call('HSET', place.hash, place.last, KEYS[list] .. '\n' .. message, 'last', place.last,
        'fence', place.fence)
      give(place.index, place.last, KEYS[list], message)
      return true
    end
  end
end

-- One of each partition in turn, so that a long queue does not keep the others waiting.
local found = true
while found and room > 0 do
  found = false
  for _, place in ipairs(places) do
    if room > 0 and place.most > 0 and take_one(place) then
      found = true
    end
  end
end
for _, place in ipairs(places) do
  if place.changed then
    redis.call('PEXPIRE', place.hash, MEMORY_MS)
  end
end
return answer
