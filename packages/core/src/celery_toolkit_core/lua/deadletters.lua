-- Dead letters: what will not be tried again by itself, kept for people. Include file.
--
-- Data model of one list: three keys, in this order
--   letters  STREAM  id, task, reason, message and details of each letter; the entry's own id says when it was put.
--                    Holds at most `most` letters, the oldest go first; the key expires when the youngest is too old.
--   index    HASH    letter id -> entry id; a letter stands once
--   taken    HASH    letter id -> 'end_ms token' while somebody replays it
-- Index and taken get the stream's expiry.
--   receipt  STRING: answer to one put, for DEAD_MEMORY_MS
--   batch    HASH    letter id -> '' | 'confirmed' | 'back': what one take got and what became of it, so that a lost
--                    answer can be asked for again. Expires with the lease, and DEAD_MEMORY_MS.
--
-- Contract (`list` is dead_list(KEYS, first)):
--   dead_id(fields)                       -> the letter's id in an entry's flat fields, '' when it has none
--   dead_holder(list, id, now_ms)         -> token that replays it now, or nil
--   dead_drop(list, id)                   -> true | false (was not there). O(log letters). Works at maxmemory.
--   dead_trim(list, from_ms, most, upto)  -> how many went: older than from_ms, or above `most`; at most `upto`
local DEAD_MEMORY_MS = 10000

local function dead_list(keys, first)
  return {letters = keys[first], index = keys[first + 1], taken = keys[first + 2]}
end

local function dead_id(fields)
  for i = 1, #fields, 2 do
    if fields[i] == 'id' then
      return fields[i + 1]
    end
  end
  return ''
end

local function dead_holder(list, id, now)
  local ends, token = (redis.call('HGET', list.taken, id) or ''):match('^(%d+) (.*)$')
  if ends and tonumber(ends) > now then
    return token
  end
end

local function dead_remove(list, entry, id)
  redis.call('XDEL', list.letters, entry)
  if redis.call('HGET', list.index, id) == entry then
    redis.call('HDEL', list.index, id)
    redis.call('HDEL', list.taken, id)
  end
  if redis.call('XLEN', list.letters) == 0 then
    redis.call('DEL', list.letters)
  end
end

local function dead_drop(list, id)
  local entry = redis.call('HGET', list.index, id)
  if entry then
    dead_remove(list, entry, id)
  end
  return entry ~= false
end

-- One by one: most calls find nothing to do, and a letter may be large.
local function dead_trim(list, from_ms, most, upto)
  local surplus = redis.call('XLEN', list.letters) - most
  for gone = 0, upto - 1 do
    local entry = redis.call('XRANGE', list.letters, '-', '+', 'COUNT', 1)[1]
    if not entry or (gone >= surplus and tonumber(entry[1]:match('^%d+')) >= from_ms) then
      return gone
    end
    dead_remove(list, entry[1], dead_id(entry[2]))
  end
  return upto
end
