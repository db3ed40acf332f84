--@include celery_toolkit_core:clock
--@include celery_heimdall:parking
-- Which lanes are due, and which tasks were not taken up in time. A due lane is the caller's for CLAIM_MS. Model:
-- parking.lua.
-- The one who found something due keeps watch, and looks again in time; whoever else asks is told to come later. So one
-- worker looks while all goes well, without an election, and another does a moment later when it dies.
-- KEYS  1-6 parking  7 watch: STRING, who keeps it
-- ARGV  1 most lanes to return  2 who asks  3 ms that the others come later
-- Returns {{lane, spec, ...}, {task id, lane, spec ('': poisoned), ...} late, ms until the next look or -1}
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
if not next_due[2] then
  return {lanes, late, -1}
end
local wait, later = math.max(0, next_due[2] - now), tonumber(ARGV[3])
local watch = redis.call('GET', KEYS[7])
if lanes[1] or not watch or watch == ARGV[2] then
  redis.call('SET', KEYS[7], ARGV[2], 'PX', wait + 2 * later)
else
  wait = wait + later
end
return {lanes, late, wait}
