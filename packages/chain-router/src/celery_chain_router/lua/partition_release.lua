--@include celery_toolkit_core:clock
--@include celery_chain_router:members
--@include celery_chain_router:partitions
-- Give partitions up: others may take them at once. O(partitions given up).
-- KEYS  see members.lua and partitions.lua
-- ARGV  1 token, 2... for each partition: its number, its fence
-- Returns how many were this process's
local us = now_us()
local now = math.floor(us / 1000)
local released = 0
for index = 2, #ARGV, 2 do
  local fence, holder = owner_of(ARGV[index], now)
  if fence == ARGV[index + 1] and holder == ARGV[1] then
    redis.call('HDEL', KEYS[9], ARGV[index])
    released = released + 1
  end
end
if released > 0 then
  raise_epoch(us) -- who is to have them looks at the epoch
end
return released
