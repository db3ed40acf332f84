-- Put one task into the backlog of its client. Replayed with the same entry id it changes nothing.
--
-- KEYS  see backlog.lua
-- ARGV  1 entry id, 2 message, 3 queue, 4 address, 5 client, 6 label, 7 cost (a number or 'runtime'), 8 rank in the
--       client (0 first), 9 delay (ms, 0 = now), 10 task id, 11 task name, 12 '1' if the task has a weight function,
--       13 weight to keep for the client ('' = leave it), 14 backlog limit of the task's options ('' = none),
--       15 'new', 'inside' (sent by a body of this client: also while it is drained), 'free' (admitted before: no limit
--       counts) or 'back' (like 'free'; if another control had taken it away, it gets its old place again)
-- returns  {'waiting' | 'scheduled' | 'again' | 'full' | 'draining', entries of the client that wait,
--           address of the queue where it waits, if not the given one}
--
-- An entry: q queue, c client, cost, p rank, o order number, a attempts so far, id task id, name, fn weight function?,
-- at enqueued or due (ms). While it is in flight also: taken (ms), ticket, token, step (the charge), w (the weight in it), charged (the
-- cost in it), turn (its number), last (the client's turn before), before (when that was, ms), started.
--@include celery_toolkit_core:clock
--@include celery_ranch:backlog
local id, message, queue, address, client, label = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local now = now_ms()

if redis.call('HEXISTS', ENTRIES, id) == 1 or redis.call('ZSCORE', ENDED, id) then
  return { 'again', client_of(client, label).n }
end
local record = client_of(client, label)
record.k = label
local admission = ARGV[15]
if admission == 'new' or admission == 'inside' then
  if record.d and admission == 'new' then return { 'draining', record.n } end
  if record.n >= math.min(record.y or math.huge, tonumber(ARGV[14]) or math.huge) then return { 'full', record.n } end
end
if ARGV[13] ~= '' then record.w = tonumber(ARGV[13]) end
if record.n == 0 then redis.call('ZADD', ACTIVE, now, client) end
record.n = record.n + 1
redis.call('HSET', MESSAGES, id, message)
local entry = {
  q = queue, c = client, cost = tonumber(ARGV[7]) or 'runtime', p = tonumber(ARGV[8]), o = bump('submitted'), a = 0,
  id = ARGV[10], name = ARGV[11], fn = ARGV[12] == '1', at = now,
}
if admission == 'back' then
  local away = redis.call('HGET', AWAY, entry.id)
  if away then
    away = cmsgpack.unpack(away)
    entry.o, entry.q = away.o, away.q
    address = redis.call('HGET', ADDRESSES, entry.q)
    redis.call('HDEL', AWAY, entry.id)
    redis.call('ZREM', DEPARTED, entry.id)
  end
end
keep_entry(id, entry)
keep_client(client, record)
local delay = tonumber(ARGV[9])
if delay > 0 then
  redis.call('HSET', ADDRESSES, queue, address)
  redis.call('ZADD', SCHEDULED, now + delay, id)
  return { 'scheduled', record.n }
end
-- The first of a queue tells where its tickets are published; one that comes back finds that told already.
if line_up(id, entry, record) == 1 and entry.q == queue then redis.call('HSET', ADDRESSES, queue, address) end
return { 'waiting', record.n, admission == 'back' and address or nil }
