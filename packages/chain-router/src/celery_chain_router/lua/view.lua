--@include celery_toolkit_core:clock
-- All members, or only the epoch when the caller has seen it already. O(1) | O(members). Writes nothing.
-- KEYS  see members.lua
-- ARGV  1 the epoch that the caller knows, or ''
-- Returns {epoch} | {epoch, then for each member: name, 'up' | 'draining' | 'gone', record, ms that its lease lasts
--         or, of the dead, ms since its end (negative)}
local epoch = redis.call('GET', KEYS[6]) or '0'
if epoch == ARGV[1] then
  return {epoch}
end
local now = now_ms()
local answer = {epoch}
local function add(name, state, ms)
  for _, value in ipairs({name, state, redis.call('HGET', KEYS[1], name) or '', ms}) do
    answer[#answer + 1] = value
  end
end
local living = redis.call('ZRANGE', KEYS[3], 0, -1, 'WITHSCORES')
for index = 1, #living, 2 do
  local draining = redis.call('SISMEMBER', KEYS[4], living[index]) == 1
  add(living[index], draining and 'draining' or 'up', tonumber(living[index + 1]) - now)
end
local dead = redis.call('ZRANGE', KEYS[5], 0, -1, 'WITHSCORES')
for index = 1, #dead, 2 do
  add(dead[index], 'gone', tonumber(dead[index + 1]) - now)
end
return answer
