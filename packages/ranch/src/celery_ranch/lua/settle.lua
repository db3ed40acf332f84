-- What workers report of claimed entries; included by claim.lua (reports ride on the next claim) and run alone by
-- report.lua. A report is five values: kind, entry id, token, a, b.
--
--   end    a = outcome (of one that was handed back, with the reason: 'handed_back limited'), b = seconds that the body
--          ran ('' when it did not)
--   start  the body has begun and Celery has acknowledged early: from here on it must not be repeated
--   lost   its process was killed under the body, and the broker has its ticket again: the lease ends now, so that the
--          next care counts the attempt as it does after the death of a whole worker
--   weigh  a = weight of the client by its weight function: corrects the charge of this turn, counts from now on;
--          b = '1' when the function failed and this is the static weight
--
-- A report whose token is not the entry's (ended before, or taken over by another worker) changes nothing.

-- Outcomes that end an entry for good, and the counter of each.
local COUNTED = { done = 'done', revoked = 'revoked', expired = 'expired', handed_back = 'handed_back' }
-- Outcomes without a running time after which the client's turn is given back: no worker time was used.
local REFUNDED = { revoked = true, expired = true, handed_back = true, released = true }
local HISTORY_LENGTH, AWAY_MS = 10000, 7 * 24 * 3600 * 1000

local function move_turn(entry, record, by)
  local turn = turn_of(entry.q, entry.c)
  if by ~= 0 and turn.state ~= 'new' then
    place(entry.q, entry.c, record, turn, math.max(0, turn.v + by))
  end
end

-- Give a turn back: the client stands where it stood, unless it was served again meanwhile, which keeps its date.
local function refund(entry, record)
  local turn = turn_of(entry.q, entry.c)
  if turn.state ~= 'new' then
    local last = turn.last == entry.turn and entry.last or turn.last
    place(entry.q, entry.c, record, turn, math.max(0, turn.v - entry.step), last)
  end
end

-- The last tasks that ran, for those who watch shares and waits.
local function remember(entry, seconds, now)
  local taken, cost = entry.taken or now, entry.cost == 'runtime' and seconds or entry.charged
  local line = string.format('%.0f %s %s %.0f %.0f %.6g', now, entry.c, entry.q, taken - entry.at, seconds * 1000, cost)
  if redis.call('LPUSH', HISTORY, line) > HISTORY_LENGTH * 1.1 then
    redis.call('LTRIM', HISTORY, 0, HISTORY_LENGTH - 1)
  end
end

-- Another control has taken it, and may send it back: until then we know why it is away, and where it stood.
local function send_away(entry, why, now)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', DEPARTED, '-inf', now - AWAY_MS, 'LIMIT', 0, 2)) do
    redis.call('HDEL', AWAY, id)
    redis.call('ZREM', DEPARTED, id)
  end
  redis.call('HSET', AWAY, entry.id, cmsgpack.pack({ o = entry.o, q = entry.q, c = entry.c, why = why }))
  redis.call('ZADD', DEPARTED, now, entry.id)
end

-- One entry fewer is in flight: what its client's cap held back lines up again, and a client without work rests.
local function landed(entry, record, now, wanted)
  if record.x then unhold(entry.c, record, 1, wanted) end
  rest(entry.c, record, now)
  keep_client(entry.c, record)
end

local function settle_end(id, entry, outcome, seconds, now, wanted)
  local why
  outcome, why = string.match(outcome, '^(%S+) ?(.*)$')
  local record = client_of(entry.c)
  take_off(id, entry)
  record.r = math.max(0, record.r - 1)
  if REFUNDED[outcome] and not seconds then
    record.s = math.max(0, record.s - 1)
    refund(entry, record)
  elseif seconds then
    remember(entry, seconds, now)
    -- The mean of the last ten or so: follows a client whose tasks change.
    record.m = record.m and record.m + (seconds - record.m) / 10 or seconds
    if entry.cost == 'runtime' then
      move_turn(entry, record, charge(math.max(seconds, 0.001), entry.w) - entry.step)
    end
  end
  if COUNTED[outcome] then
    bump(COUNTED[outcome])
    if outcome == 'handed_back' and why ~= 'ended' then send_away(entry, why, now) end
    forget(id, now)
  elseif outcome == 'quarantined' then
    bury(id, entry, 'quarantined', now)
  else
    -- requeued: the task asked for it; released: taken back from a worker that leaves before the body began
    record.n = record.n + 1
    keep_entry(id, entry)
    line_up(id, entry, record)
    wanted[entry.q] = (wanted[entry.q] or 0) + 1
  end
  landed(entry, record, now, wanted)
end

-- Take the reports from ARGV[from] on; `wanted` collects tickets to issue. Returns how many came too late.
local function settle(from, count, now, wanted)
  local late = 0
  for index = 0, count - 1 do
    local at = from + index * 5
    local kind, id, token, a, b = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
    local entry = entry_of(id)
    if not entry or entry.token ~= token then
      late = late + 1
    elseif kind == 'end' then
      settle_end(id, entry, a, tonumber(b), now, wanted)
    elseif kind == 'lost' then
      entry.token = nil -- a renewal that is under way must not bring the lease back
      keep_entry(id, entry)
      redis.call('ZADD', INFLIGHT, 'XX', 0, id)
    elseif kind == 'start' then
      entry.started = true
      keep_entry(id, entry)
    elseif kind == 'weigh' then
      local record = client_of(entry.c)
      record.f = tonumber(a)
      if b == '1' then bump('weight_failures') end
      local step = charge(entry.charged, record.f)
      move_turn(entry, record, step - entry.step)
      entry.step, entry.w = step, record.f
      keep_entry(id, entry)
      keep_client(entry.c, record)
    end
  end
  return late
end
