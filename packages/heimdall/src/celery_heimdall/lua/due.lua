--@include celery_toolkit_core:clock
--@include celery_heimdall:parking
-- Which lanes are due, and which tasks were not taken up in time. A due lane is the caller's for CLAIM_MS. Model:
-- parking.lua.
-- KEYS  1-6 parking
-- ARGV  1 most lanes to return
-- Returns {{lane, spec, ...}, {task id, lane, spec ('': poisoned), ...} late, ms until the next lane is due or -1}
local CLAIM_MS = 2000
local now = now_ms()
local lanes = {}
for _, lane in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, ARGV[1])) do
  local spec = redis.call('HGET', KEYS[6], lane)
  if spec then
    redis.call('ZADD', KEYS[3], now + CLAIM_MS, lane)
    lanes[#lanes + 1] = lane
    lanes[#lanes + 1] = spec
  else
    redis.call('ZREM', KEYS[3], lane)
  end
end
local late = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', now, 'LIMIT', 0, ARGV[1])) do
  local item = item_read(KEYS, id)
  if item then
    late[#late + 1] = id
    late[#late + 1] = item.lane or ''
    late[#late + 1] = item.spec or ''
  else
    redis.call('ZREM', KEYS[4], id)
  end
end
local next_due = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')
return {lanes, late, next_due[2] and math.max(0, next_due[2] - now) or -1}
