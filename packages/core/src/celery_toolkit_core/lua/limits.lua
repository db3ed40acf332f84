--@include celery_toolkit_core:lease
--@include celery_toolkit_core:window
-- Several limits decided together, all or nothing. Include file.
--
-- Data model of one limit, or of one part of it (a tenant, an account), from `Demand.keys`: three keys
--   log | slots  LIST (window.lua) of a rate limit | ZSET (lease.lua, no fences) of a concurrency limit
--   penalty      STRING: nothing may start until then (ms); expires then
--   values       HASH of the whole limit: field '' or a part's digest -> 'times span_us until_ms', the value in force
--                instead of the defined one, until then (0: until it is restored); times 0: paused. The operator ends
--                it, or its TTL when every field has an end.
-- and of one take
--   receipt      STRING: the stamp of a granted take, for RECEIPT_MS, so that a lost answer can be asked for again.
--
-- Contract. In Python, `limits.script_keys(keyspace, demands)` and `limits.script_args(demands)` make what
-- `limits_read` reads. A script of your own then says, in this order:
--   local limits = limits_read(KEYS, first_key, ARGV, first_arg)     3 keys and 5 args for each limit after the count at
--                                                                    ARGV[first_arg]; limits.next_key and .next_arg are
--                                                                    the places behind them
--   local blocked = limits_blocked(limits, token, now)               reads, and forgets what counts no more: a list of
--                                                                    {place in `limits` from 1, us to wait or -1 when
--                                                                    no time is known}; empty: all would be granted
--   ... whatever else you decide ...
--   local stamp = limits_charge(limits, token, now)                  only after an empty `blocked` in the same script:
--                                                                    takes all of them; the stamp identifies the start
--   limits_again(limits, stamp, costs)                               before limits_blocked: the start at `stamp`, which cost
--                                                                    that, is decided anew. What it holds is in nobody's
--                                                                    way, and limits_charge moves it to now
--   limits_forgo(limits)                                             instead of limits_charge: it does not happen
--   limits_release(limits, token, now)                               frees the slots of a token; true if it held any.
--                                                                    Starts are not given back: settle to 0 for that.
--   limits_renew(limits, token, now)                                 true when all its slots are still held (and now
--                                                                    renewed), false when any was lost
--   limits_settle(limits, stamp)                                     each rate limit's `cost` is what the start at
--                                                                    `stamp` cost in the end; counts those found
-- `now` is now_us() once per script. One limit must not stand twice in a list. release, renew and settle work at
-- maxmemory. O(log slots) per limit, amortised O(1) per start.
local RECEIPT_MS = 10000
local LIMIT_KEYS, LIMIT_ARGS = 3, 5

local function limits_read(keys, key, argv, arg)
  local limits = {}
  for i = 1, tonumber(argv[arg]) do
    local at = arg + 1 + (i - 1) * LIMIT_ARGS
    limits[i] = {
      log = keys[key],
      penalty = keys[key + 1],
      values = keys[key + 2],
      rate = argv[at] == 'rate',
      times = tonumber(argv[at + 1]),
      span_us = tonumber(argv[at + 2]),
      cost = tonumber(argv[at + 3]),
      part = argv[at + 4],
    }
    key = key + LIMIT_KEYS
  end
  limits.next_key = key
  limits.next_arg = arg + 1 + #limits * LIMIT_ARGS
  return limits
end

-- Puts the value in force into the limit: its part's, else the whole limit's, else the defined one.
local function limit_in_force(limit, now)
  local found = redis.call('HMGET', limit.values, limit.part, '')
  for i = 1, 2 do
    if found[i] then
      local times, span_us, until_ms = found[i]:match('^(%d+) (%d+) (%d+)$')
      until_ms = tonumber(until_ms)
      if until_ms == 0 or until_ms * 1000 > now then
        limit.times = tonumber(times)
        if limit.rate then
          limit.span_us = tonumber(span_us)
        end
        limit.until_us = until_ms > 0 and until_ms * 1000 or nil
        return
      end
    end
  end
end

-- The us for which nothing may start.
local function limit_penalty(limit, now)
  return math.max(0, tonumber(redis.call('GET', limit.penalty) or 0) * 1000 - now)
end

local function limits_again(limits, stamp, costs)
  for i, limit in ipairs(limits) do
    if limit.rate then
      limit.stamp, limit.before = stamp, costs[i] or 0
    end
  end
end

local function limits_forgo(limits)
  for _, limit in ipairs(limits) do
    if limit.place then
      window_settle(limit.log, limit.stamp, 0)
      limit.place, limit.used = nil, limit.used - limit.before
    end
  end
end

-- Sets limit.used, and limit.place if the limit counts a start that is decided anew. Returns nil when the limit lets this token pass, else the us to wait (-1: no time is known).
local function limit_wait(limit, token, now)
  limit_in_force(limit, now)
  local wait
  if limit.rate then
    limit.used, limit.any = window_used(limit.log, limit.span_us, now)
    limit.place = limit.stamp and limit.any and redis.call('LPOS', limit.log, limit.stamp, 'RANK', -1)
    local excess = limit.used - (limit.place and limit.before or 0) + limit.cost - limit.times
    if limit.times == 0 then
      wait = -1
    elseif excess > 0 then
      limits_forgo({limit})  -- it does not wait for itself
      wait = window_wait(limit.log, limit.span_us, now, excess) or -1
    end
  else
    local now_ms = math.floor(now / 1000)
    limit.used = lease_sweep(limit.log, false, now_ms)
    if lease_held(limit.log, token, now_ms) then
      return nil
    elseif limit.times == 0 then
      wait = -1
    elseif limit.used >= limit.times then
      wait = lease_first_end(limit.log, now_ms) * 1000 - now
    end
  end
  if wait and limit.until_us then
    local ends = limit.until_us - now
    wait = wait == -1 and ends or math.min(wait, ends)
  end
  local penalty = limit_penalty(limit, now)
  if penalty > 0 and wait ~= -1 then
    wait = math.max(wait or 0, penalty)
  end
  return wait
end

local function limits_blocked(limits, token, now)
  local blocked = {}
  for i, limit in ipairs(limits) do
    local wait = limit_wait(limit, token, now)
    if wait then
      blocked[#blocked + 1] = {i, wait}
    end
  end
  return blocked
end

local function limits_charge(limits, token, now)
  local stamp = now
  for _, limit in ipairs(limits) do
    if limit.rate and limit.any then
      stamp = math.max(stamp, window_last(limit.log) + 1)
    end
  end
  for _, limit in ipairs(limits) do
    if limit.place then
      local change = limit.cost ~= limit.before and limit.used - limit.before + limit.cost
      window_move(limit.log, limit.span_us, now, limit.place, stamp, limit.cost, change)
    elseif limit.rate then
      window_add(limit.log, limit.span_us, now, limit.used, limit.any, stamp, limit.cost)
    else
      lease_acquire(limit.log, false, token, limit.times, limit.span_us / 1000, now)
    end
  end
  return stamp
end

local function limits_release(limits, token, now)
  local held = false
  for _, limit in ipairs(limits) do
    if not limit.rate then
      held = lease_release(limit.log, false, token, math.floor(now / 1000)) or held
    end
  end
  return held
end

local function limits_renew(limits, token, now)
  local kept = true
  for _, limit in ipairs(limits) do
    if not limit.rate then
      kept = lease_renew(limit.log, false, token, limit.span_us / 1000, math.floor(now / 1000)) and kept
    end
  end
  return kept
end

local function limits_settle(limits, stamp)
  local found = 0
  for _, limit in ipairs(limits) do
    if limit.rate and window_settle(limit.log, stamp, limit.cost) then
      found = found + 1
    end
  end
  return found
end

-- The stamp of a granted take whose answer may have been lost; nil when there is none, or a slot of it has ended.
local function limits_receipt(receipt, limits, token, now)
  local stamp = tonumber(redis.call('GET', receipt) or nil)
  for _, limit in ipairs(limits) do
    if stamp and not limit.rate and not lease_held(limit.log, token, math.floor(now / 1000)) then
      return nil
    end
  end
  return stamp
end
