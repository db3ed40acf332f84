--@include celery_toolkit_core:clock
--@include celery_chain_router:members
--@include celery_chain_router:partitions
-- Take every partition that this worker is to have and nobody has, each with a fence higher than any before.
-- O(partitions).
-- KEYS  see members.lua and partitions.lua
-- ARGV  1 name, 2 token
-- Returns {partition, fence, ...}: all that this process has now, and is to have
local us = now_us()
local now = math.floor(us / 1000)
local name, token = ARGV[1], ARGV[2]
if redis.call('HGET', KEYS[2], name) ~= token or not lives(name, now) then
  return {}
end
settle(us)
local mine = {}
local _, targets = holdings(name, token, now)
for _, partition in ipairs(targets) do
  local fence, holder, _, counts = owner_of(partition, now)
  if not counts then
    fence = string.format('%.0f', math.max(us, tonumber(redis.call('HGET', KEYS[7], 'fence') or 0) + 1))
    redis.call('HSET', KEYS[7], 'fence', fence)
    redis.call('HSET', KEYS[9], partition, fence .. ' ' .. token .. ' ' .. name)
    holder = token
  end
  if holder == token then
    mine[#mine + 1] = partition
    mine[#mine + 1] = fence
  end
end
keep_all()
return mine
