--@include celery_toolkit_core:clock
--@include celery_toolkit_core:deadletters
-- Take letters for replay under a lease, each by one token only; the same token asking again gets what it still holds.
-- O(log letters) per letter, and the letters others hold at the old end. Data model: deadletters.lua.
-- KEYS  1 batch, 2-4 the list
-- ARGV  1 token, 2 lease_ms, 3 how many of the oldest free ones, 4... or these ids instead
-- Returns {entry id, token, fields, ...}
local list, now = dead_list(KEYS, 2), now_ms()
local token, lease_ms, count = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local answer = {}

local function give(entry)
  answer[#answer + 1] = entry[1]
  answer[#answer + 1] = token
  answer[#answer + 1] = entry[2]
end

local function entry_of(id)
  local entry = redis.call('HGET', list.index, id)
  return entry and redis.call('XRANGE', list.letters, entry, entry)[1]
end

local function take(entry)
  local id = dead_id(entry[2])
  if dead_holder(list, id, now) then
    return
  end
  redis.call('HSET', list.taken, id, string.format('%.0f', now + lease_ms) .. ' ' .. token)
  redis.call('HSET', KEYS[1], id, '')
  give(entry)
end

if redis.call('EXISTS', KEYS[1]) == 1 then
  local held = {}
  for _, id in ipairs(redis.call('HKEYS', KEYS[1])) do
    if dead_holder(list, id, now) == token then
      held[#held + 1] = entry_of(id)
    end
  end
  table.sort(held, function(one, other)
    local a_ms, a_seq = one[1]:match('^(%d+)-(%d+)$')
    local b_ms, b_seq = other[1]:match('^(%d+)-(%d+)$')
    return tonumber(a_ms) < tonumber(b_ms) or (a_ms == b_ms and tonumber(a_seq) < tonumber(b_seq))
  end)
  for _, entry in ipairs(held) do
    give(entry)
  end
  return answer
end

for i = 4, #ARGV do
  local entry = entry_of(ARGV[i])
  if entry then
    take(entry)
  end
end
local start = '-'
while #answer < count * 3 do
  local entries = redis.call('XRANGE', list.letters, start, '+', 'COUNT', count)
  for _, entry in ipairs(entries) do
    if #answer < count * 3 then
      take(entry)
    end
    start = '(' .. entry[1]
  end
  if #entries < count then
    break
  end
end
if answer[1] then
  redis.call('PEXPIRE', KEYS[1], lease_ms + DEAD_MEMORY_MS)
  redis.call('PEXPIRE', list.taken, math.max(1, redis.call('PTTL', list.letters)))
end
return answer
