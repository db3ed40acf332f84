--@include celery_toolkit_core:clock
--@include celery_toolkit_core:limits
-- Renew the slots of any number of takes. Data model and cost: limits.lua.
-- KEYS  the limits' of each take in turn
-- ARGV  token, then the limits', of each take in turn
-- Returns a list of 1 (all its slots are renewed) and 0 (a slot was lost), in the same order
local now = now_us()
local key, arg = 1, 1
local answers = {}
while ARGV[arg] do
  local limits = limits_read(KEYS, key, ARGV, arg + 1)
  answers[#answers + 1] = limits_renew(limits, ARGV[arg], now) and 1 or 0
  key, arg = limits.next_key, limits.next_arg
end
return answers
