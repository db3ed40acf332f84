-- A worker received a ticket: settle what it reports, then claim the fairest waiting task of the ticket's queue.
-- Replayed with the same ticket and token, it returns the same task again.
--
-- KEYS  see backlog.lua
-- ARGV  1 ticket id, 2 queue, 3 token, 4 lease (ms), 5 most attempts, 6 number of reports, 7... reports (settle.lua)
-- returns  {state, late reports, tickets to issue (addressed), and when the state is 'claimed' also:
--           message, profile ('' without a weight function), and one line: entry id, weight, attempts so far, weight
--           function?, time of the last claim (ms), how long the task has waited (ms), label}
--   claimed  a task to run
--   empty    nothing may run now: this ticket was surplus, or all that waits is held by pauses and caps
--   alive    the ticket came a second time and what it claimed is in good hands, or in its last
--@include celery_toolkit_core:clock
--@include celery_ranch:backlog
--@include celery_ranch:settle
--@include celery_ranch:sweeping
local ticket, queue, token, lease_ms, most = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local now = now_ms()
-- First a write that needs no memory: Redis then lets a full server take the rest of the script as well.
redis.call('HDEL', REISSUED, '')

local wanted = {}
local late = settle(7, tonumber(ARGV[6]), now, wanted)

local function claimed(id, entry, record, before)
  -- One line in place of seven values: a client spends more on reading a reply than on anything else of a claim.
  return {
    'claimed', late, addressed(wanted), redis.call('HGET', MESSAGES, id) or '',
    entry.fn and redis.call('HGET', PROFILES, entry.c) or '',
    string.format(
      '%s %s %d %d %.0f %.0f %s', id, tostring(record.w), entry.a, entry.fn and 1 or 0, before or 0,
      entry.taken - entry.at, record.k
    ),
  }
end

local earlier = redis.call('HGET', CLAIMS, ticket)
if earlier then
  local entry = entry_of(earlier)
  if entry and entry.token == token then
    redis.call('ZADD', INFLIGHT, 'XX', now + lease_ms, earlier)
    return claimed(earlier, entry, client_of(entry.c), entry.before)
  end
  -- A task that has had its last attempt is left to the care, which tells its result.
  local spent = entry and not entry.started and entry.a + 1 >= most
  if spent or tonumber(redis.call('ZSCORE', INFLIGHT, earlier) or 0) > now then
    return { 'alive', late, addressed(wanted) }
  end
  -- Its lease has ended: the task returns to the head of its client, and its client's turn is due again.
  recover(earlier, entry, now, most, wanted)
end

local function next_task()
  while true do
    local member = first(READY, queue)
    if not member then return nil end
    local client = string.sub(member, -32)
    local turn, record = turn_of(queue, client), client_of(client)
    local head, second = first(WAITING, queue .. ':' .. client)
    if not head or blocked(record) then
      place(queue, client, record, turn)
    else
      local id = string.sub(head, -32)
      redis.call('ZREM', WAITING, head)
      redis.call('HINCRBY', QUEUED, queue, -1)
      local entry = entry_of(id)
      if entry then return id, entry, client, record, turn, second ~= nil end
      -- What cannot be read is put aside where it is; nobody else's turn suffers.
      bury(id, nil, 'quarantined', now)
      record.n = math.max(0, record.n - 1)
      keep_client(client, record)
      place(queue, client, record, turn)
    end
  end
end

local id, entry, client, record, turn, waits = next_task()
if not id then
  return { 'empty', late, addressed(wanted) }
end
local before = record.t
local weight = entry.fn and record.f or record.w
local cost = entry.cost == 'runtime' and (record.m or 1) or entry.cost
entry.step, entry.w, entry.charged = charge(cost, weight), weight, cost
entry.ticket, entry.token, entry.before, entry.turn, entry.last = ticket, token, before, bump('turns'), turn.last
entry.taken = now
record.n, record.r, record.t, record.s = math.max(0, record.n - 1), record.r + 1, now, record.s + 1
redis.call('ZADD', INFLIGHT, now + lease_ms, id)
redis.call('HSET', CLAIMS, ticket, id)
keep_entry(id, entry)
keep_client(client, record)
local clock = clock_of(queue)
if turn.v > clock then
  clock = turn.v
  redis.call('HSET', CLOCKS, queue, string.format('%021.0f', clock))
end
place(queue, client, record, turn, turn.v + entry.step, entry.turn, waits, clock)

-- Turns that the clock has passed say nothing any more.
local past = string.format('(%s:%021.0f', queue, clock)
local passed = redis.call('ZRANGEBYLEX', IDLE, '[' .. queue .. ':', past, 'LIMIT', 0, 2)
for _, member in ipairs(passed) do
  redis.call('ZREM', IDLE, member)
  redis.call('HDEL', TURNS, queue .. ':' .. string.sub(member, -32))
end
return claimed(id, entry, record, before)
