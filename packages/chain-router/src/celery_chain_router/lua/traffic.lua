-- What the living members have counted lately. O(members). Writes nothing.
-- KEYS  see members.lua
-- Returns {name, what it has counted, ...}
return redis.call('HGETALL', KEYS[7])
