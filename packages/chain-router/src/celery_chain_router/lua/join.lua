--@include celery_toolkit_core:clock
--@include celery_chain_router:members
-- Take a name, or keep the one that this token has: the first sign of life and every later one. Reaps the others.
-- O(candidates + members that ended).
-- KEYS  see members.lua
-- ARGV  1 token, 2 lease_ms, 3 record, 4 prefix of automatic slots or '' for none, 5 traffic or '' for none,
--       6... candidate names in order
-- Returns {1, name, epoch, 1 if the name was not ours before} | {0, first candidate, record of its owner, ms its lease lasts}
local us = now_us()
local now = math.floor(us / 1000)
local token, lease_ms, record, slots, traffic = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]

local function owner_ends(name)
  local ends = tonumber(redis.call('ZSCORE', KEYS[3], name) or 0)
  return ends > now and ends or nil
end

local function is_mine(name)
  return redis.call('HGET', KEYS[2], name) == token
end

local name
for index = 6, #ARGV do
  if is_mine(ARGV[index]) then
    name = ARGV[index]
  end
end
for index = 6, #ARGV do
  if not name and not owner_ends(ARGV[index]) then
    name = ARGV[index]
  end
end
local slot = 0
while slots ~= '' and not name do
  slot = slot + 1
  if is_mine(slots .. slot) or not owner_ends(slots .. slot) then
    name = slots .. slot
  end
end
if not name then
  return {0, ARGV[6], redis.call('HGET', KEYS[1], ARGV[6]) or '', owner_ends(ARGV[6]) - now}
end

local fresh = not is_mine(name)
if not fresh then
  keep() -- needs no memory, so that a server at maxmemory lets the rest through
else
  redis.call('SREM', KEYS[4], name)
  redis.call('ZREM', KEYS[5], name)
  redis.call('HSET', KEYS[2], name, token)
end
local changed = fresh or redis.call('HGET', KEYS[1], name) ~= record
redis.call('ZADD', KEYS[3], now + lease_ms, name)
redis.call('HSET', KEYS[1], name, record)
if traffic ~= '' then
  redis.call('HSET', KEYS[7], name, traffic)
end
if reap(now) or changed then
  raise_epoch(us)
end
keep()
return {1, name, redis.call('GET', KEYS[6]), fresh and 1 or 0}
