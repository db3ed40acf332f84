-- now_ms() -> the server's clock in whole milliseconds; the only clock of all our scripts.
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
