--@include celery_toolkit_core:limits
-- Set what one start cost in the end. Data model and cost: limits.lua.
-- KEYS  the limits'
-- ARGV  1 stamp of the start, then the limits'; each cost is the final one
-- Returns how many of the rate limits still counted that start
return limits_settle(limits_read(KEYS, 1, ARGV, 2), ARGV[1])
