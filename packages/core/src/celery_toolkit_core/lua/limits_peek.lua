--@include celery_toolkit_core:clock
--@include celery_toolkit_core:limits
-- What each limit would answer now; takes nothing. Data model and cost: limits.lua.
-- KEYS  the limits'
-- ARGV  the limits'
-- Returns {times, span_us, used, us to wait (0: none, -1: no time is known), us of penalty left} of each limit, flat
local now = now_us()
local answer = {}
for _, limit in ipairs(limits_read(KEYS, 1, ARGV, 1)) do
  local wait = limit_wait(limit, '', now) or 0
  for _, value in ipairs({limit.times, limit.span_us, limit.used, wait, limit_penalty(limit, now)}) do
    answer[#answer + 1] = value
  end
end
return answer
