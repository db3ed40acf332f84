--@include celery_toolkit_core:clock
-- Who holds a name; writes nothing. O(holders). Data model: lease.lua.
-- KEYS  1 holders, 2 fences
-- Returns {last fence or 0, token, fence, ms left, token, fence, ms left, ...}, first to end first
local now = now_ms()
local answer = {tonumber(redis.call('HGET', KEYS[2], '') or 0)}
local holders = redis.call('ZRANGEBYSCORE', KEYS[1], now + 1, '+inf', 'WITHSCORES')
for i = 1, #holders, 2 do
  answer[#answer + 1] = holders[i]
  answer[#answer + 1] = tonumber(redis.call('HGET', KEYS[2], holders[i]) or 0)
  answer[#answer + 1] = tonumber(holders[i + 1]) - now
end
return answer
