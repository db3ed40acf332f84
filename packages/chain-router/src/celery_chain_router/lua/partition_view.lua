--@include celery_toolkit_core:clock
--@include celery_chain_router:members
--@include celery_chain_router:partitions
-- Who has which partition, for people. O(partitions). Writes nothing.
-- KEYS  see members.lua and partitions.lua
-- Returns {partition, name of its owner or '', fence or 0, 1 if the owner's lease lasts, name of who is to have it or '',
--          ...}
local now = now_ms()
local rows = {}
for partition = 0, tonumber(redis.call('HGET', KEYS[7], 'count') or 0) - 1 do
  local fence, _, name, counts = owner_of(partition, now)
  local target = redis.call('HGET', KEYS[8], partition) or ''
  for _, value in ipairs({partition, name or '', tonumber(fence or 0), counts and 1 or 0, target}) do
    rows[#rows + 1] = value
  end
end
return rows
