--@include celery_toolkit_core:clock
--@include celery_toolkit_core:lease
-- Renew any number of leases, each only if its token still holds it. O(n log holders). Data model: lease.lua.
-- KEYS  holders, fences of each lease in turn
-- ARGV  token, ttl_ms of each lease in turn
-- Returns a list of 1 (renewed) and 0 (lost), in the same order
local now = now_ms()
local answers = {}
for i = 1, #ARGV, 2 do
  answers[#answers + 1] = lease_renew(KEYS[i], KEYS[i + 1], ARGV[i], tonumber(ARGV[i + 1]), now) and 1 or 0
end
return answers
