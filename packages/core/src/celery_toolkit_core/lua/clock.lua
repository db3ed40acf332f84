-- now_us() -> the server's clock in whole microseconds, exact in a Lua number; now_ms() -> the same in milliseconds.
-- It is the only clock of all our scripts. Read it once per script and pass it on: a script has one "now".
local function now_us()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function now_ms()
  return math.floor(now_us() / 1000)
end
