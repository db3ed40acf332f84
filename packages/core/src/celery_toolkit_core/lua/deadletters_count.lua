-- How many letters a list holds. O(1). Data model: deadletters.lua.
-- KEYS  1-3 the list
-- ARGV  none
-- Returns the number
return redis.call('XLEN', KEYS[1])
