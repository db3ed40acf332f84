-- The data model of ranch and the functions that several scripts need. Every script takes the same KEYS:
--
--   ENTRIES    hash  entry id -> what we know of a task (msgpack, see enqueue.lua)
--   MESSAGES   hash  entry id -> the Celery message as bytes; never looked into
--   WAITING    lex   queue:client:rank:number:entry      the order inside each client
--   READY      lex   queue:start:last:since:client       the order between clients with work that may run now
--   HELD       lex   client:queue                        clients with work that their own cap or pause holds back
--   IDLE       lex   queue:start:client                  turns of clients without work, until the clock has passed them
--   TURNS      hash  queue:client -> the client's place in this queue (msgpack: v, last, since, state)
--   CLOCKS     hash  queue -> virtual time: the highest virtual start served so far
--   INFLIGHT   zset  entry id, by the end of its lease
--   CLAIMS     hash  ticket id -> entry id
--   SCHEDULED  zset  entry id, by the time when it is due
--   CLIENTS    hash  client -> its record (msgpack, see `client_of`)
--   ADDRESSES  hash  queue -> where its tickets are published (opaque to scripts)
--   COUNTERS   hash  what has happened, ever; also the running numbers
--   ENDED      zset  ids of entries that ended in the last minute: an enqueue replayed after that must not repeat
--   QUEUED     hash  queue -> number of waiting entries
--   REISSUED   hash  queue -> when its missing tickets were issued last
--   PROFILES   hash  client -> tags and custom data (opaque to scripts)
--   ACTIVE     zset  client, by the time when it last began or ended to have work
--   DEAD       zset  ids of entries that were lost with too many workers, by the time; entry and message stay stored
--   QUARANTINE zset  ids of entries that could not be read, likewise
--   HISTORY    list  the last tasks that ran, newest first: 'ended (ms) client queue waited (ms) ran (ms) cost'
--   AWAY       hash  task id -> what another control took away (msgpack: o order number, q queue, c client, why), until it comes back
--   DEPARTED   zset  the task ids of AWAY, by the time; after a week they are forgotten
--   SERVED     hash  queue -> when a worker that consumes it was seen last (ms)
--   TAGGED     lex   tag:client, tag:value:client as digests: which clients have a tag
--
-- "lex" is a sorted set with equal scores, ordered by its members. A queue and a client are digests of 32 hex digits.
-- Virtual time counts in millionths of one task of cost 1 and weight 1, so that sums are exact.
-- Source: P. Goyal, H. Vin, H. Cheng, "Start-time Fair Queueing", SIGCOMM 1996.
local ENTRIES, MESSAGES, WAITING, READY, HELD = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local IDLE, TURNS, CLOCKS, INFLIGHT, CLAIMS = KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local SCHEDULED, CLIENTS, ADDRESSES, COUNTERS, ENDED = KEYS[11], KEYS[12], KEYS[13], KEYS[14], KEYS[15]
local QUEUED, REISSUED, PROFILES, ACTIVE, DEAD = KEYS[16], KEYS[17], KEYS[18], KEYS[19], KEYS[20]
local TAGGED, QUARANTINE, HISTORY, AWAY, DEPARTED, SERVED = KEYS[21], KEYS[22], KEYS[23], KEYS[24], KEYS[25], KEYS[26]

local UNIT = 1000000
local REPLAY_MS = 60000

local function bump(name, by)
  return redis.call('HINCRBY', COUNTERS, name, by or 1)
end

-- The first member of a lex set that begins with `prefix` and a colon, and the one after it.
local function first(key, prefix)
  local members = redis.call('ZRANGEBYLEX', key, '[' .. prefix .. ':', '(' .. prefix .. ';', 'LIMIT', 0, 2)
  return members[1], members[2]
end

local function all(key, prefix)
  return redis.call('ZRANGEBYLEX', key, '[' .. prefix .. ':', '(' .. prefix .. ';')
end

-- An entry's record, or nil when it is gone or cannot be read.
local function entry_of(id)
  local raw = redis.call('HGET', ENTRIES, id)
  if not raw then return nil end
  local read, entry = pcall(cmsgpack.unpack, raw)
  return read and type(entry) == 'table' and entry or nil
end

local function keep_entry(id, entry)
  redis.call('HSET', ENTRIES, id, cmsgpack.pack(entry))
end

-- A client's record: k label, w weight, f weight by function (or nil), x cap, y backlog limit, h paused, d draining,
-- n waiting + scheduled, r in flight, t time of its last claim (ms), m mean runtime (s), s served, g its entries in
-- TAGGED.
local function client_of(client, label)
  local raw = redis.call('HGET', CLIENTS, client)
  if raw then
    local read, record = pcall(cmsgpack.unpack, raw)
    if read and type(record) == 'table' then return record end
  end
  return { k = label or '', w = 1, n = 0, r = 0, s = 0 }
end

local function keep_client(client, record)
  redis.call('HSET', CLIENTS, client, cmsgpack.pack(record))
end

local function turn_of(queue, client)
  local raw = redis.call('HGET', TURNS, queue .. ':' .. client)
  return raw and cmsgpack.unpack(raw) or { v = 0, last = 0, since = 0, state = 'new' }
end

local function clock_of(queue)
  return tonumber(redis.call('HGET', CLOCKS, queue) or 0)
end

local function ready_member(queue, client, turn)
  return string.format('%s:%021.0f:%016.0f:%016.0f:%s', queue, turn.v, turn.last, turn.since, client)
end

local function idle_member(queue, client, turn)
  return string.format('%s:%021.0f:%s', queue, turn.v, client)
end

local function leave(queue, client, turn)
  if turn.state == 'ready' then
    redis.call('ZREM', READY, ready_member(queue, client, turn))
  elseif turn.state == 'idle' then
    redis.call('ZREM', IDLE, idle_member(queue, client, turn))
  elseif turn.state == 'held' then
    redis.call('ZREM', HELD, client .. ':' .. queue)
  end
end

local function blocked(record)
  return record.h or (record.x and record.r >= record.x)
end

-- Put a client where it belongs in one queue after its work, its charge or its limits changed; `turn` is as it was
-- stored, `v` and `last` what they are now. Who comes from idleness or from its own cap enters at the clock at the
-- earliest: having waited for work, or for itself, earns no credit over the others.
-- `waits` tells whether it has work, where that is known; `clock` the queue's clock.
local function place(queue, client, record, turn, v, last, waits, clock)
  leave(queue, client, turn)
  local before = turn.state
  turn.v, turn.last = v or turn.v, last or turn.last
  if waits == nil then waits = first(WAITING, queue .. ':' .. client) end
  if not waits then
    turn.state = 'idle'
    redis.call('ZADD', IDLE, 0, idle_member(queue, client, turn))
  elseif blocked(record) then
    turn.state = 'held'
    redis.call('ZADD', HELD, 0, client .. ':' .. queue)
  else
    turn.state = 'ready'
    if before ~= 'ready' then
      turn.v = math.max(turn.v, clock or clock_of(queue))
      turn.since = bump('turns')
    end
    redis.call('ZADD', READY, 0, ready_member(queue, client, turn))
  end
  redis.call('HSET', TURNS, queue .. ':' .. client, cmsgpack.pack(turn))
end

local function waiting_member(id, entry)
  return string.format('%s:%s:%03.0f:%016.0f:%s', entry.q, entry.c, entry.p, entry.o, id)
end

-- Put an entry into its client's line; one that comes back keeps its number and so stands at its head. Returns how many
-- wait in the queue then.
local function line_up(id, entry, record)
  redis.call('ZADD', WAITING, 0, waiting_member(id, entry))
  local queued = redis.call('HINCRBY', QUEUED, entry.q, 1)
  local turn = turn_of(entry.q, entry.c)
  -- Who stands in the order between clients already stays where it is, however much more work comes.
  if turn.state ~= 'ready' or blocked(record) then
    place(entry.q, entry.c, record, turn, nil, nil, true)
  end
  return queued
end

-- Take an entry out of the in-flight set.
local function take_off(id, entry)
  redis.call('ZREM', INFLIGHT, id)
  if entry.ticket then redis.call('HDEL', CLAIMS, entry.ticket) end
  entry.ticket, entry.token, entry.started = nil, nil, nil
end

-- A client that has no work left is idle from now on.
local function rest(client, record, now)
  if record.n == 0 and record.r == 0 then redis.call('ZADD', ACTIVE, now, client) end
end

-- Put an entry aside, readable or not; a person decides what becomes of it.
local function bury(id, entry, why, now)
  redis.call('ZADD', why == 'quarantined' and QUARANTINE or DEAD, now, id)
  if entry then
    entry.why = why
    keep_entry(id, entry)
  end
end

-- Forget an entry that has ended.
local function forget(id, now)
  redis.call('HDEL', MESSAGES, id)
  redis.call('HDEL', ENTRIES, id)
  redis.call('ZADD', ENDED, now, id)
end

-- One place in flight became free: where the client's own cap held it back, it lines up again, and as its tickets may
-- have been spent meanwhile, each such queue needs `tickets` new ones. Adds to the map `wanted`: queue -> tickets.
local function unhold(client, record, tickets, wanted)
  if blocked(record) then return end
  for _, member in ipairs(all(HELD, client)) do
    local queue = string.sub(member, #client + 2)
    place(queue, client, record, turn_of(queue, client))
    wanted[queue] = (wanted[queue] or 0) + tickets
  end
end

-- The map as a flat list: address, tickets, address, tickets, ...
local function addressed(wanted)
  local list = {}
  for queue, tickets in pairs(wanted) do
    local address = redis.call('HGET', ADDRESSES, queue)
    if address and tickets > 0 then
      list[#list + 1] = address
      list[#list + 1] = tickets
    end
  end
  return list
end

-- The charge of one turn, in millionths.
local function charge(cost, weight)
  return math.max(1, math.floor(cost * weight * UNIT + 0.5))
end
