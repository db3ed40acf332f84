-- Tasks that wait in Redis: what they wait for is a lane, their order in it is that of their arrival. Include file.
--
-- Data model, once per application (`keys` below, in this order)
--   1 items   HASH  task id -> JSON {state, token, lane, spec, order, queue, since, parkings, attempt, holder, stamp,
--                   costs, returned, owed}
--                   state: parked   in its lane
--                          waking   published to `<queue>.wake`; back in its lane when nobody takes it in time
--                          entered  a worker has it in hand and its body has not begun; likewise
--                   stamp: of its charge (core's limits.lua), as text: JSON in Lua has 14 digits
--                   costs: what the start costs of each limit of its lane
--                   returned: the token whose body was not allowed to start, if one was not
--                   owed: it was accepted, and lost its key to a later one
--                   token: `<task id>/<delivery>`; only the bearer of the token in the item may go on with it
--   2 bodies  HASH  task id -> the message, as `StoredMessage.to_bytes` wrote it
--   3 due     ZSET  lane -> when to look at it next (ms)
--   4 held    ZSET  task id -> until when (ms) its waking or entered state is believed
--   5 order   STRING  the last order number
--   6 specs   HASH  lane -> JSON of what its wake script needs (written and read by Python only)
--                   '<lane> woken' -> 'count until_ms': how many of a limits' lane were woken and are not taken up yet; no
--                   more are woken than workers take up, else all would be late, woken anew, and late again
-- for each limited or woken task that has begun
--   began     STRING  its token, so that the broker's copy of a woken message is taken when the worker dies; of a limited
--                     one also the name of the question whether it may start, and the stamp that was the answer, so that
--                     a lost answer can be asked for again. Ends with the task, at the latest after BEGAN_MEMORY_MS
-- and for each lane
--   lane      ZSET  task id -> order
-- An item ends with its task; a lane and its spec with its last item.
local BEGAN_MEMORY_MS, BEGAN_ANSWER_MS = 86400000, 10000

local function began_write(began, token, memory_ms, question, stamp)
  local answer = stamp and string.format(' %s %.0f', question, stamp) or ''
  redis.call('SET', began, token .. answer, 'PX', memory_ms)
end

-- The stamp that `question` was answered with; without a question, whether the bearer of this token has begun.
local function began_read(began, token, question)
  local found = redis.call('GET', began)
  if not found or found:sub(1, #token) ~= token then
    return nil
  end
  local asked, stamp = found:match(' (%S+) (%d+)$')
  return not question or asked == question and stamp
end

-- An item that nobody can read has the state 'poisoned'; whoever meets it in a lane or among the held hands it out to be
-- put aside (quarantine.lua), so that it holds up nobody.
local function item_read(keys, id)
  local found = redis.call('HGET', keys[1], id)
  if not found then
    return false
  end
  local readable, item = pcall(cjson.decode, found)
  return readable and type(item) == 'table' and item.state and item or {state = 'poisoned', token = '', queue = ''}
end

local function item_write(keys, id, item)
  redis.call('HSET', keys[1], id, cjson.encode(item))
end

local function item_remove(keys, id)
  redis.call('HDEL', keys[1], id)
  redis.call('HDEL', keys[2], id)
  redis.call('ZREM', keys[4], id)
end

-- Ms until a look at a limit that has no room, of `limits_blocked`: a place that is held may be given back at any moment,
-- also by a task of another lane.
local function limit_look(limits, one)
  local one_ms = one[2] < 0 and 1000 or math.ceil(one[2] / 1000)
  return limits[one[1]].rate and one_ms or math.min(one_ms, 1000)
end

-- What the limits' refusal of a start comes to: ms until they may let it pass, nil when they do so now; the place of
-- the limit that ends the task instead; and ms until the next look. `strategies` has one letter for each limit: x raise,
-- d drop, others wait.
local function limits_refusal(blocked, strategies, limits)
  local wait, ends, look
  for _, one in ipairs(blocked) do
    wait = math.max(wait or 1, one[2] < 0 and 1000 or math.ceil(one[2] / 1000))
    look = math.max(look or 1, limit_look(limits, one))
    local strategy = strategies:sub(one[1], one[1])
    if strategy == 'x' and (not ends or strategies:sub(ends, ends) ~= 'x') or strategy == 'd' and not ends then
      ends = one[1]
    end
  end
  return wait, ends, look
end

-- The costs of a start, to be kept in its item; and back again, with {} for a start that costs nothing after all.
local function limits_costs(limits)
  local costs = {}
  for i, limit in ipairs(limits) do
    costs[i] = limit.cost
  end
  return costs
end

local function limits_cost(limits, costs)
  for i, limit in ipairs(limits) do
    limit.cost = costs[i] or 0
  end
end

-- The name of a lane, which is the end of its key.
local function lane_of(lane_key)
  return lane_key:match('[^:]*$')
end

-- Look at the lane in `wait_ms`, or earlier if that was planned.
local function lane_plan(keys, lane, due_ms)
  local planned = tonumber(redis.call('ZSCORE', keys[3], lane) or nil)
  if not planned or due_ms < planned then
    redis.call('ZADD', keys[3], due_ms, lane)
  end
end

local function park(keys, lane_key, lane, spec, id, item, body, due_ms, now)
  item.state, item.lane, item.spec, item.stamp = 'parked', lane, spec, nil
  item.order = item.order or redis.call('INCR', keys[5])
  item.since = item.since or now
  item.parkings = (item.parkings or 0) + 1
  item_write(keys, id, item)
  if body ~= '' then
    redis.call('HSET', keys[2], id, body)
  end
  redis.call('ZADD', lane_key, item.order, id)
  redis.call('ZREM', keys[4], id)
  redis.call('HSET', keys[6], lane, spec)
  lane_plan(keys, lane, due_ms)
end

local function woken_read(keys, lane, now)
  local count, until_ms = (redis.call('HGET', keys[6], lane .. ' woken') or ''):match('^(%d+) (%d+)$')
  if not count or tonumber(until_ms) <= now then
    return 0, now
  end
  return tonumber(count), tonumber(until_ms)
end

local function woken_write(keys, lane, count, until_ms)
  if count > 0 then
    redis.call('HSET', keys[6], lane .. ' woken', string.format('%.0f %.0f', count, until_ms))
  else
    redis.call('HDEL', keys[6], lane .. ' woken')
  end
end

-- A woken task was taken up, or is late.
local function woken_less(keys, item, now)
  if item.state == 'waking' then
    local count, until_ms = woken_read(keys, item.lane, now)
    woken_write(keys, item.lane, count - 1, until_ms)
  end
end

-- Takes an item out of its lane to be published by the caller; its answer is appended to `answer`.
local function wake(keys, lane_key, id, item, token, hold_ms, now, answer)
  redis.call('ZREM', lane_key, id)
  if item.state == 'poisoned' then
    token = ''
  else
    item.state, item.token = 'waking', token
    item_write(keys, id, item)
    redis.call('ZADD', keys[4], now + hold_ms, id)
  end
  for _, value in ipairs({id, token, item.queue, redis.call('HGET', keys[2], id) or ''}) do
    answer[#answer + 1] = value
  end
end

-- Plans the next look at a lane after a wake, or forgets a lane without items.
local function lane_settle(keys, lane_key, lane, due_ms)
  if redis.call('EXISTS', lane_key) == 0 then
    redis.call('ZREM', keys[3], lane)
    redis.call('HDEL', keys[6], lane)
  else
    redis.call('ZADD', keys[3], due_ms, lane)
  end
end
