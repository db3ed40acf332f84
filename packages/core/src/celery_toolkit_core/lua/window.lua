-- Exact sliding window: the log of every start that still counts. Include file.
--
-- Data model of one window
--   log  LIST  sum, stamp, cost, stamp, cost, ...: the sum of all costs first, then the starts, oldest first. Integers,
--              so a start takes 12 to 15 bytes. Absent when no start counts. Expires `per` after the last start.
-- A stamp is in microseconds and unique in its log: max(now, last stamp + 1). A start at `s` counts at `t` while
-- t - s <= per, both ends included; so two starts that are `times` apart in the log are more than `per` apart.
-- A clock that steps back is held at the last stamp: nothing is over-admitted, starts wait until it has caught up.
--
-- Contract (costs are whole numbers from 0 on; `span_us` is `per` in microseconds)
--   window_used(log, span_us, now_us)                    -> sum of the costs that count, whether any start does; forgets
--                                                           what does not. Amortised O(1) per start.
--   window_wait(log, span_us, now_us, excess)            -> us until costs of at least `excess` have left; nil when
--                                                           there are not as many. O(starts that must leave).
--   window_last(log)                                     -> the last stamp, 0 when there is none. O(1).
--   window_add(log, span_us, now_us, used, any, stamp, cost)
--                                                        -> records a start; `used` and `any` are what window_used said.
--                                                           O(1).
--   window_move(log, span_us, now_us, place, stamp, cost, change)
--                                                        -> a start that counts (its LPOS) happens now instead and costs
--                                                           `cost`; `change` is the new sum, or nil for the old. O(1) but
--                                                           for LSET. Works at maxmemory.
--   window_settle(log, stamp, cost)                      -> true | false (that start counts no more): sets what a start
--                                                           cost in the end. O(starts since then). Works at maxmemory.
local function window_used(log, span_us, now)
  local head = redis.call('LRANGE', log, 0, 1)
  if not head[1] then
    return 0, false
  end
  local oldest = now - span_us
  if tonumber(head[2]) >= oldest then
    return tonumber(head[1]), true
  end
  local used = tonumber(redis.call('LPOP', log))
  local batch = 2
  repeat
    local starts = redis.call('LRANGE', log, 0, batch - 1)
    local gone = 0
    while starts[gone + 1] and tonumber(starts[gone + 1]) < oldest do
      used = used - tonumber(starts[gone + 2])
      gone = gone + 2
    end
    redis.call('LTRIM', log, gone, -1)
    local more = gone == batch
    batch = math.min(batch * 2, 1024)
  until not more
  local any = redis.call('EXISTS', log) == 1
  if any then
    redis.call('LPUSH', log, used)
  end
  return used, any
end

local function window_wait(log, span_us, now, excess)
  local first, batch = 1, 2
  while true do
    local starts = redis.call('LRANGE', log, first, first + batch - 1)
    for i = 1, #starts, 2 do
      excess = excess - tonumber(starts[i + 1])
      if excess <= 0 then
        return tonumber(starts[i]) + span_us + 1 - now
      end
    end
    if #starts < batch then
      return nil
    end
    first = first + batch
    batch = math.min(batch * 2, 1024)
  end
end

local function window_last(log)
  return tonumber(redis.call('LINDEX', log, -2) or 0)
end

local function window_add(log, span_us, now, used, any, stamp, cost)
  if any then
    redis.call('LSET', log, 0, used + cost)
    redis.call('RPUSH', log, stamp, cost)
  else
    redis.call('RPUSH', log, cost, stamp, cost)
  end
  redis.call('PEXPIRE', log, math.ceil((stamp - now + span_us) / 1000) + 1)
end

local function window_move(log, span_us, now, place, stamp, cost, change)
  redis.call('PEXPIRE', log, math.ceil((stamp - now + span_us) / 1000) + 1)  -- the first write must need no memory
  redis.call('LSET', log, place + 1, 0)
  if change then
    redis.call('LSET', log, 0, change)
  end
  redis.call('RPUSH', log, stamp, cost)
end

local function window_settle(log, stamp, cost)
  local place = redis.call('LPOS', log, stamp, 'RANK', -1)
  if not place then
    return false
  end
  -- The first write must need no memory. Giving the log the life it has is such a write.
  redis.call('PEXPIRE', log, math.max(1, redis.call('PTTL', log)))
  local before = tonumber(redis.call('LINDEX', log, place + 1))
  redis.call('LSET', log, place + 1, cost)
  redis.call('LSET', log, 0, tonumber(redis.call('LINDEX', log, 0)) - before + cost)
  return true
end
