--@include celery_heimdall:lock
--@include celery_heimdall:parking
-- Wake those who wait for a lock: everybody whose holder has ended, and the first who waits to run when nobody runs.
-- KEYS  1-6 parking  7 lane  8 lock
-- ARGV  1 lane  2 most tasks  3 ms until a woken task that nobody takes up is parked again  4 delivery's name, unique
--       5 ms after which a body counts as hung
-- Returns {ms until the next look or -1, task id, token ('': poisoned), queue, message, ...}
local now = now_ms()
local answer = {-1}
local hung_ms = tonumber(ARGV[5])
local state = lock_read(KEYS[8], now)
local free = not state.token or now >= state.since_ms + hung_ms
local woken = 0
for turn, id in ipairs(redis.call('ZRANGE', KEYS[7], 0, tonumber(ARGV[2]) - 1)) do
  local item = item_read(KEYS, id)
  local holder = item and item.holder
  local goes
  if not item then
    redis.call('ZREM', KEYS[7], id)
  elseif item.state == 'poisoned' then
    goes = true
  elseif holder then
    goes = lock_settled(state, holder) or state.queued ~= holder and state.running ~= holder
  else
    goes = free and (item.owed or not state.queued or state.queued == id)
    free = free and not goes
  end
  if goes then
    wake(KEYS, KEYS[7], id, item, id .. '/' .. ARGV[4] .. '-' .. turn, tonumber(ARGV[3]), now, answer)
    woken = woken + 1
  end
end
local wait = 5000
if woken > 0 then
  wait = 1000
elseif state.token then
  wait = math.min(wait, lock_wait(state, hung_ms, now))
elseif state.queued then
  wait = math.max(1, math.min(wait, (state.reserved or state.until_ms) - now))
end
lane_settle(KEYS, KEYS[7], ARGV[1], now + wait)
answer[1] = redis.call('EXISTS', KEYS[7]) == 1 and wait or -1
return answer
