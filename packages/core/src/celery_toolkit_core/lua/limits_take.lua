--@include celery_toolkit_core:clock
--@include celery_toolkit_core:limits
-- Take several limits, all or nothing; the same token asking again gets the same grant. Data model and cost: limits.lua.
-- KEYS  1 receipt, then the limits'
-- ARGV  1 token, then the limits'
-- Returns {1, stamp} | {0, place from 1, us to wait or -1, place, us, ...}
local now = now_us()
local token = ARGV[1]
local limits = limits_read(KEYS, 2, ARGV, 2)
local stamp = limits_receipt(KEYS[1], limits, token, now)
if stamp then
  return {1, stamp}
end
local blocked = limits_blocked(limits, token, now)
if blocked[1] then
  local answer = {0}
  for _, one in ipairs(blocked) do
    answer[#answer + 1] = one[1]
    answer[#answer + 1] = one[2]
  end
  return answer
end
stamp = limits_charge(limits, token, now)
redis.call('SET', KEYS[1], stamp, 'PX', RECEIPT_MS)
return {1, stamp}
