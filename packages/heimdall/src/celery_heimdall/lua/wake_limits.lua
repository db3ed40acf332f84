--@include celery_toolkit_core:clock
--@include celery_heimdall:parking
--@include celery_toolkit_core:limits
-- Wake as many tasks of a limits' lane as have room, first come first; each is charged now.
-- KEYS  1-6 parking  7 lane  then the limits'
-- ARGV  1 lane  2 most tasks on their way at a time  3 ms until a woken task that nobody takes up is parked again  4 delivery's name, unique
--       5 permille to wait longer than expected  then the limits'
-- Returns {ms until the next look or -1, task id, token ('': poisoned), queue, message, ...}
local us = now_us()
local now = math.floor(us / 1000)
local answer = {-1}
-- When as many are on their way as may be: a look in so many ms.
local FULL_MS = 50
local under_way = woken_read(KEYS, ARGV[1], now)
local room = tonumber(ARGV[2]) - under_way
local woken, wait = 0, nil
for turn = 1, room do
  local id = redis.call('ZRANGE', KEYS[7], 0, 0)[1]
  if not id then
    break
  end
  local item = item_read(KEYS, id)
  if not item then
    redis.call('ZREM', KEYS[7], id)
  elseif item.state == 'poisoned' then
    wake(KEYS, KEYS[7], id, item, '', 0, now, answer)
  else
    local limits = limits_read(KEYS, 8, ARGV, 6)
    limits_cost(limits, item.costs)
    local token = id .. '/' .. ARGV[4] .. '-' .. turn
    for _, one in ipairs(limits_blocked(limits, token, us)) do
      wait = math.max(wait or 1, limit_look(limits, one))
    end
    if wait then
      break
    end
    item.stamp = string.format('%.0f', limits_charge(limits, token, us))
    wake(KEYS, KEYS[7], id, item, token, tonumber(ARGV[3]), now, answer)
    woken = woken + 1
  end
end
if woken > 0 then
  woken_write(KEYS, ARGV[1], under_way + woken, now + ARGV[3])
end
if woken >= room then
  wait = math.max(wait or 1, FULL_MS)
end
wait = math.ceil((wait or 1) * (1 + ARGV[5] / 1000))
lane_settle(KEYS, KEYS[7], ARGV[1], now + wait)
answer[1] = redis.call('EXISTS', KEYS[7]) == 1 and wait or -1
return answer
