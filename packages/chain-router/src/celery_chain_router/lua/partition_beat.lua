--@include celery_toolkit_core:clock
--@include celery_chain_router:members
--@include celery_chain_router:partitions
-- A sign of life: it extends the name and with it every partition of this process. O(1), after a change O(partitions).
-- KEYS  see members.lua and partitions.lua
-- ARGV  1 name, 2 token, 3 lease_ms, 4 record, 5 number of partitions, 6 the epoch that the caller knows, or ''
-- Returns {1, epoch, 1 if the name was not ours before} | the same and, at a new epoch, {partition, fence, ...} owned,
--         {partition, ...} to be had | {0, record of the name's owner, ms its lease lasts} | {-1, number of partitions
--         that the others have}
local us = now_us()
local now = math.floor(us / 1000)
local name, token, count = ARGV[1], ARGV[2], ARGV[5]

local holder = redis.call('HGET', KEYS[2], name)
if holder and holder ~= token and lives(name, now) then
  local left = tonumber(redis.call('ZSCORE', KEYS[3], name)) - now
  return {0, redis.call('HGET', KEYS[1], name) or '', left}
end
local known = redis.call('HGET', KEYS[7], 'count')
if known ~= count then
  local others = redis.call('ZCOUNT', KEYS[3], '(' .. now, '+inf') - (lives(name, now) and 1 or 0)
  if known and others > 0 then
    return {-1, tonumber(known)}
  end
  redis.call('DEL', KEYS[8], KEYS[9], KEYS[10])
  redis.call('HSET', KEYS[7], 'count', count)
  raise_epoch(us)
end

local fresh = holder ~= token
if fresh then
  redis.call('SREM', KEYS[4], name)
  redis.call('ZREM', KEYS[5], name)
  redis.call('HSET', KEYS[2], name, token)
else
  keep_all() -- needs no memory, so that a server at maxmemory lets the rest through
end
redis.call('ZADD', KEYS[3], now + tonumber(ARGV[3]), name)
if redis.call('SISMEMBER', KEYS[4], name) == 0 then
  redis.call('ZREM', KEYS[11], name)
end
if fresh or redis.call('HGET', KEYS[1], name) ~= ARGV[4] then
  redis.call('HSET', KEYS[1], name, ARGV[4])
  raise_epoch(us)
end
local epoch = settle(us)
keep_all()
if epoch == ARGV[6] and not fresh then
  return {1, epoch, 0}
end
local owned, targets = holdings(name, token, now)
return {1, epoch, fresh and 1 or 0, owned, targets}
