-- What waits for its time and then for its turn. Include file.
--
-- Data model of one queue: five keys, in this order wherever a queue is passed
--   payloads  HASH  id -> bytes, never looked into
--   places    HASH  id -> 'order token': its place among the due, and who took it ('' when nobody has)
--   later     ZSET  id -> due_ms, not yet due
--   ready     ZSET  id -> order, due and free; lowest first
--   taken     ZSET  id -> end of the lease (ms)
-- An id is in both hashes and in exactly one of the three sets, or nowhere. All keys vanish with their last entry; an
-- entry ends by confirm or discard, whose callers own it.
--   batch     HASH  id -> '' | 'confirmed' | 'back': what one take got and what became of it, so that a lost answer can
--                   be asked for again. Expires with the lease, and DELAYED_MEMORY_MS.
--   receipt   STRING: the order that one put got, for DELAYED_MEMORY_MS.
--
-- Contract, for scripts that decide more (all O(log entries) per entry touched; `queue` is delayed_queue(KEYS, first)):
--   delayed_put(queue, id, payload, due_ms, order, now_ms)  -> nothing; an id that is there is replaced, whatever its
--                                                              state: who had taken it can no longer confirm it
--   delayed_take(queue, count, lease_ms, token, now_ms)     -> {id, ...} in order, now leased to the token
--   delayed_confirm(queue, id, token)                       -> true (it was the token's, and is gone) | false
--   delayed_give_back(queue, id, token, due_ms, now_ms)     -> true (it waits again, at its old place) | false
--   delayed_discard(queue, id)                              -> true | false (was not there)
-- confirm, give back and discard work at maxmemory. A take makes at most DELAYED_BATCH entries of each set ready, so
-- one call stays short when very many come due at once; the order is that of the entries made ready so far.
local DELAYED_MEMORY_MS = 10000
local DELAYED_BATCH = 1000

local function delayed_queue(keys, first)
  return {
    payloads = keys[first],
    places = keys[first + 1],
    later = keys[first + 2],
    ready = keys[first + 3],
    taken = keys[first + 4],
  }
end

-- The order as text that keeps every digit, and the token; nil when the id is not there.
local function delayed_place(queue, id)
  local place = redis.call('HGET', queue.places, id)
  if place then
    return place:match('^(%S+) (.*)$')
  end
end

local function delayed_owned(queue, id, token)
  local _, owner = delayed_place(queue, id)
  return owner == token
end

local function delayed_wait(queue, id, due_ms, order, now)
  if due_ms > now then
    redis.call('ZADD', queue.later, due_ms, id)
  else
    redis.call('ZADD', queue.ready, order, id)
  end
end

local function delayed_discard(queue, id)
  redis.call('ZREM', queue.later, id)
  redis.call('ZREM', queue.ready, id)
  redis.call('ZREM', queue.taken, id)
  redis.call('HDEL', queue.places, id)
  return redis.call('HDEL', queue.payloads, id) == 1
end

local function delayed_put(queue, id, payload, due_ms, order, now)
  order = string.format('%.17g', order)
  redis.call('HSET', queue.payloads, id, payload)
  redis.call('HSET', queue.places, id, order .. ' ')
  redis.call('ZREM', queue.later, id)
  redis.call('ZREM', queue.ready, id)
  redis.call('ZREM', queue.taken, id)
  delayed_wait(queue, id, due_ms, order, now)
end

-- What has come due, or whose lease has ended, is ready.
local function delayed_promote(queue, set, now)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', set, '-inf', now, 'LIMIT', 0, DELAYED_BATCH)) do
    local order = delayed_place(queue, id)
    redis.call('ZREM', set, id)
    redis.call('HSET', queue.places, id, order .. ' ')
    redis.call('ZADD', queue.ready, order, id)
  end
end

local function delayed_take(queue, count, lease_ms, token, now)
  delayed_promote(queue, queue.taken, now)
  delayed_promote(queue, queue.later, now)
  local ids = {}
  local popped = redis.call('ZPOPMIN', queue.ready, count)
  for i = 1, #popped, 2 do
    local id = popped[i]
    local order = delayed_place(queue, id)
    redis.call('HSET', queue.places, id, order .. ' ' .. token)
    redis.call('ZADD', queue.taken, now + lease_ms, id)
    ids[#ids + 1] = id
  end
  return ids
end

local function delayed_confirm(queue, id, token)
  return delayed_owned(queue, id, token) and delayed_discard(queue, id)
end

local function delayed_give_back(queue, id, token, due_ms, now)
  local order, owner = delayed_place(queue, id)
  if owner ~= token then
    return false
  end
  redis.call('ZREM', queue.taken, id)
  redis.call('HSET', queue.places, id, order .. ' ')
  delayed_wait(queue, id, due_ms, order, now)
  return true
end
