--@include celery_toolkit_core:clock
--@include celery_toolkit_core:limits
-- Free the slots that a token holds, and forget its receipt. Data model and cost: limits.lua.
-- KEYS  1 receipt, then the limits'
-- ARGV  1 token, then the limits'
-- Returns 1 (it held a slot) | 0 (it held none; a replay within 10 s still gets 1)
redis.call('DEL', KEYS[1])
return limits_release(limits_read(KEYS, 2, ARGV, 2), ARGV[1], now_us()) and 1 or 0
