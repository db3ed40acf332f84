--@include celery_toolkit_core:clock
--@include celery_toolkit_core:lease
-- Give a permit back, if the token holds it. O(log holders). Data model: lease.lua.
-- KEYS  1 holders, 2 fences
-- ARGV  1 token
-- Returns 1 (it held and is free now) | 0 (it held nothing; a replay within 10 s still gets 1)
return lease_release(KEYS[1], KEYS[2], ARGV[1], now_ms()) and 1 or 0
