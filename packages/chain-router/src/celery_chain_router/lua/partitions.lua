-- Who has which partition. Include file, after `members`, whose KEYS 1 to 6 it needs as well.
--
-- Data model; KEYS 7 to 11 of every script here
--   7 table    HASH  count: number of partitions; epoch: the one for which `targets` was computed; fence: the last given
--   8 targets  HASH  partition -> name of the member that is to have it
--   9 owners   HASH  partition -> "<fence> <token> <name>" of the process that has it. The entry counts while that token
--                    has the name and the name's lease lasts: one sign of life extends all partitions of a worker.
--  10 homes    HASH  partition -> name of the member to which it returns when that one has been away
--  11 away     ZSET  name -> until when (ms) its partitions wait for it: a slot that is being restarted
-- Targets are computed in here by whoever finds that the epoch has changed, from nothing but what is in these keys.
local HOME_MEMORY_MS = 3600 * 1000

local function keep_all()
  for index = 1, 11 do
    redis.call('PEXPIRE', KEYS[index], MEMORY_MS)
  end
end

local function lives(name, now)
  return tonumber(redis.call('ZSCORE', KEYS[3], name) or 0) > now
end

-- Fence, token, name, and whether it still counts; nil when nobody ever had the partition or it was released.
local function owner_of(partition, now)
  local entry = redis.call('HGET', KEYS[9], partition)
  if not entry then
    return nil
  end
  local fence, token, name = string.match(entry, '^(%S+) (%S+) (.+)$')
  return fence, token, name, redis.call('HGET', KEYS[2], name) == token and lives(name, now)
end

-- name -> weight, and the names sorted, of those that may have partitions.
local function candidates(now)
  local weights, names = {}, {}
  local function add(name)
    if not weights[name] then
      local record = redis.call('HGET', KEYS[1], name)
      weights[name] = record and tonumber(cjson.decode(record).weight) or 1
      names[#names + 1] = name
    end
  end
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. now, '+inf')) do
    if redis.call('SISMEMBER', KEYS[4], name) == 0 then
      add(name)
    end
  end
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[11], '(' .. now, '+inf')) do
    add(name)
  end
  table.sort(names)
  return weights, names
end

-- name -> how many partitions it is to have: its share by weight, the odd ones to those who have more already.
local function quotas(count, weights, names, have)
  local total, given, quota, rest = 0, 0, {}, {}
  for _, name in ipairs(names) do
    total = total + weights[name]
  end
  for _, name in ipairs(names) do
    local exact = count * weights[name] / total
    quota[name] = math.floor(exact)
    rest[name] = exact - quota[name]
    given = given + quota[name]
  end
  local order = {unpack(names)}
  table.sort(order, function(one, other)
    if rest[one] ~= rest[other] then return rest[one] > rest[other] end
    if (have[one] or 0) ~= (have[other] or 0) then return (have[one] or 0) > (have[other] or 0) end
    return one < other
  end)
  for index = 1, count - given do
    local name = order[(index - 1) % #order + 1]
    quota[name] = quota[name] + 1
  end
  return quota
end

-- Sticky and balanced: at home first, then where it is, then to whoever lacks most. O(partitions x members) at worst.
local function assign(epoch, now)
  local count = tonumber(redis.call('HGET', KEYS[7], 'count') or 0)
  local weights, names = candidates(now)
  redis.call('HSET', KEYS[7], 'epoch', epoch)
  if #names == 0 or count == 0 then
    return
  end
  local target, home, have = {}, {}, {}
  for partition = 0, count - 1 do
    target[partition] = redis.call('HGET', KEYS[8], partition)
    home[partition] = redis.call('HGET', KEYS[10], partition)
    if target[partition] then
      have[target[partition]] = (have[target[partition]] or 0) + 1
    end
  end
  local lacks, chosen = quotas(count, weights, names, have), {}
  local function choose(partition, name)
    chosen[partition] = name
    lacks[name] = lacks[name] - 1
  end
  for _, wish in ipairs({home, target}) do
    for partition = 0, count - 1 do
      if not chosen[partition] and (lacks[wish[partition]] or 0) > 0 then
        choose(partition, wish[partition])
      end
    end
  end
  for partition = 0, count - 1 do
    if not chosen[partition] then
      local neediest = names[1]
      for _, name in ipairs(names) do
        if lacks[name] > lacks[neediest] then
          neediest = name
        end
      end
      choose(partition, neediest)
    end
    if chosen[partition] ~= target[partition] then
      redis.call('HSET', KEYS[8], partition, chosen[partition])
    end
    local owner = home[partition]
    -- One that left lately may come back: its partitions are only guests elsewhere until it is forgotten.
    local is_out = owner and not weights[owner]
      and (lives(owner, now) or tonumber(redis.call('ZSCORE', KEYS[5], owner) or 0) > now - HOME_MEMORY_MS)
    if owner ~= chosen[partition] and not is_out then
      redis.call('HSET', KEYS[10], partition, chosen[partition])
    end
  end
end

-- Take the dead off, end the waits that are over, and compute the targets if anything has changed; the epoch.
local function settle(us)
  local now = math.floor(us / 1000)
  local changed = reap(now)
  if redis.call('ZCOUNT', KEYS[11], '-inf', now) > 0 then
    redis.call('ZREMRANGEBYSCORE', KEYS[11], '-inf', now)
    changed = true
  end
  if changed then
    raise_epoch(us)
  end
  local epoch = redis.call('GET', KEYS[6]) or '0'
  if redis.call('HGET', KEYS[7], 'epoch') ~= epoch then
    assign(epoch, now)
  end
  return epoch
end

-- {partition, fence, ...} that the process has, and {partition, ...} that its name is to have.
local function holdings(name, token, now)
  local owned, targets = {}, {}
  local count = tonumber(redis.call('HGET', KEYS[7], 'count') or 0)
  for partition = 0, count - 1 do
    local fence, holder, _, counts = owner_of(partition, now)
    if counts and holder == token then
      owned[#owned + 1] = partition
      owned[#owned + 1] = fence
    end
    if redis.call('HGET', KEYS[8], partition) == name then
      targets[#targets + 1] = partition
    end
  end
  return owned, targets
end
