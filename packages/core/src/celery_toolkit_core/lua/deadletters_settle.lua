--@include celery_toolkit_core:clock
--@include celery_toolkit_core:deadletters
-- Confirm (the letter is gone) or give back (it may be taken again), each only if the token still holds it.
-- O(log letters) per letter. Data model: deadletters.lua.
-- KEYS  1 batch, 2-4 the list
-- ARGV  1 token, 2 'confirmed' | 'back', 3... letter ids
-- Returns a list of 1 (done, now or by an earlier call of the same token) and 0 (it was the token's no more)
local list, now = dead_list(KEYS, 2), now_ms()
local token, word = ARGV[1], ARGV[2]
local answers = {}
for i = 3, #ARGV do
  local id = ARGV[i]
  local done = dead_holder(list, id, now) == token
  if done then
    if word == 'confirmed' then
      dead_drop(list, id)
    else
      redis.call('HDEL', list.taken, id)
    end
    if redis.call('EXISTS', KEYS[1]) == 1 then
      redis.call('HSET', KEYS[1], id, word)
    end
  else
    done = redis.call('HGET', KEYS[1], id) == word
  end
  answers[#answers + 1] = done and 1 or 0
end
return answers
