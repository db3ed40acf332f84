-- The periodic care, by any worker at any time: it is one script, so two at once do no harm and nobody need be elected.
-- Takes back what dead workers held, lines up what is due, and issues tickets where a worker idles beside waiting work,
-- and where work waits that nobody serves: whoever empties a dead worker's queue then comes across a ticket of it.
--
-- KEYS  see backlog.lua
-- ARGV  1 most attempts, 2 most entries of each kind per run, 3 how long idle clients' records live (ms, 0 = for ever),
--       4 number of queues in which the calling worker has found nothing for a second, 5... those, then all others
--       that it consumes
-- returns  {tickets to issue (addressed), returned, abandoned, {task id, message, ...} of those that are dead now}
--@include celery_toolkit_core:clock
--@include celery_ranch:backlog
--@include celery_ranch:settle
--@include celery_ranch:sweeping
local UNSERVED_MS, UNSERVED_MOST_MS, UNSERVED_TICKETS = 5000, 60000, 10
-- What was seen of a queue that nobody serves, in REISSUED: its waiting entries and its clock.
local SEEN = ':seen'
local most, batch, ttl_ms = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local now = now_ms()
redis.call('HDEL', REISSUED, '')
local wanted, fates, dead = {}, { returned = 0, abandoned = 0, dead = 0, quarantined = 0 }, {}

for _, id in ipairs(redis.call('ZRANGEBYSCORE', INFLIGHT, '-inf', now, 'LIMIT', 0, batch)) do
  local entry = entry_of(id)
  local fate = recover(id, entry, now, most, wanted)
  fates[fate] = fates[fate] + 1
  if fate == 'dead' then
    dead[#dead + 1] = entry.id
    dead[#dead + 1] = redis.call('HGET', MESSAGES, id) or ''
  end
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', SCHEDULED, '-inf', now, 'LIMIT', 0, batch)) do
  redis.call('ZREM', SCHEDULED, id)
  local entry = entry_of(id)
  if entry then
    entry.at = now
    keep_entry(id, entry)
    line_up(id, entry, client_of(entry.c))
    wanted[entry.q] = (wanted[entry.q] or 0) + 1
  else
    bury(id, nil, 'quarantined', now)
  end
end

redis.call('ZREMRANGEBYSCORE', ENDED, '-inf', now - REPLAY_MS)
for index = 5, #ARGV do redis.call('HSET', SERVED, ARGV[index], now) end
for index = 5, 4 + tonumber(ARGV[4]) do
  local queue = ARGV[index]
  if now - tonumber(redis.call('HGET', REISSUED, queue) or 0) >= 1000 and first(READY, queue) then
    redis.call('HSET', REISSUED, queue, now)
    wanted[queue] = math.max(wanted[queue] or 0, math.min(tonumber(redis.call('HGET', QUEUED, queue) or 0), 10 * batch))
  end
end

if now - tonumber(redis.call('HGET', REISSUED, 'unserved') or 0) >= UNSERVED_MS then
  redis.call('HSET', REISSUED, 'unserved', now)
  local queued = redis.call('HGETALL', QUEUED)
  for index = 1, #queued, 2 do
    local queue, count = queued[index], tonumber(queued[index + 1])
    local served = tonumber(redis.call('HGET', SERVED, queue) or nil)
    if count > 0 and not served then
      redis.call('HSET', SERVED, queue, now)
    elseif count > 0 and now - served > UNSERVED_MS then
      -- The longer nobody comes, the more seldom: the tickets pile up where they are. While tasks are claimed, somebody
      -- has taken over its tickets and needs no more.
      local pause = math.min(UNSERVED_MOST_MS, (now - served) / 4)
      local seen, clock = redis.call('HGET', REISSUED, queue .. SEEN), clock_of(queue)
      redis.call('HSET', REISSUED, queue .. SEEN, string.format('%s %.0f', count, clock))
      local count_before, clock_before = string.match(seen or '', '^(%d+) (%d+)$')
      local moves = seen and (count < tonumber(count_before) or clock > tonumber(clock_before))
      if not moves and now - tonumber(redis.call('HGET', REISSUED, queue) or 0) >= pause and first(READY, queue) then
        redis.call('HSET', REISSUED, queue, now)
        wanted[queue] = math.max(wanted[queue] or 0, math.min(count, UNSERVED_TICKETS))
      end
    end
  end
end

if ttl_ms > 0 then
  for _, client in ipairs(redis.call('ZRANGEBYSCORE', ACTIVE, '-inf', now - ttl_ms, 'LIMIT', 0, batch)) do
    local record = client_of(client)
    redis.call('ZREM', ACTIVE, client)
    if record.n == 0 and record.r == 0 then
      for _, tag in ipairs(record.g or {}) do redis.call('ZREM', TAGGED, tag .. ':' .. client) end
      redis.call('HDEL', CLIENTS, client)
      redis.call('HDEL', PROFILES, client)
    else
      redis.call('ZADD', ACTIVE, now, client)
    end
  end
end
return { addressed(wanted), fates.returned, fates.abandoned, dead }
