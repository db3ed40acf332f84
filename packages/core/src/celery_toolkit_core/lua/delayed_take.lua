--@include celery_toolkit_core:clock
--@include celery_toolkit_core:delayed
-- Take due entries under a lease; the same token asking again gets what it still holds. O(log entries) per entry.
-- Data model: delayed.lua.
-- KEYS  1 batch, 2-6 the queue
-- ARGV  1 token, 2 count, 3 lease_ms
-- Returns {id, payload, order as text, ...} in order
local queue = delayed_queue(KEYS, 2)
local token, lease_ms, now = ARGV[1], tonumber(ARGV[3]), now_ms()
local ids = {}
local before = redis.call('HKEYS', KEYS[1])
if before[1] then
  for _, id in ipairs(before) do
    local ends = tonumber(redis.call('ZSCORE', queue.taken, id) or 0)
    if ends > now and delayed_owned(queue, id, token) then
      ids[#ids + 1] = id
    end
  end
else
  ids = delayed_take(queue, tonumber(ARGV[2]), lease_ms, token, now)
  for _, id in ipairs(ids) do
    redis.call('HSET', KEYS[1], id, '')
  end
  redis.call('PEXPIRE', KEYS[1], lease_ms + DELAYED_MEMORY_MS)
end
local orders = {}
for _, id in ipairs(ids) do
  orders[id] = delayed_place(queue, id)
end
table.sort(ids, function(one, other)
  local first, second = tonumber(orders[one]), tonumber(orders[other])
  return first < second or (first == second and one < other)
end)
local answer = {}
for _, id in ipairs(ids) do
  answer[#answer + 1] = id
  answer[#answer + 1] = redis.call('HGET', queue.payloads, id)
  answer[#answer + 1] = orders[id]
end
return answer
