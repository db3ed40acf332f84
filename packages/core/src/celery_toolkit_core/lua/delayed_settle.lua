--@include celery_toolkit_core:clock
--@include celery_toolkit_core:delayed
-- Confirm or give back taken entries, each only if the token still holds it. O(log entries) per entry.
-- Data model: delayed.lua.
-- KEYS  1 batch, 2-6 the queue
-- ARGV  1 token, 2 'confirmed' | 'back', 3 ms until due again, 4... ids
-- Returns a list of 1 (done, now or by an earlier call of the same token) and 0 (it was the token's no more)
local queue = delayed_queue(KEYS, 2)
local token, word, now = ARGV[1], ARGV[2], now_ms()
local answers = {}
for i = 4, #ARGV do
  local id, done = ARGV[i], nil
  if word == 'confirmed' then
    done = delayed_confirm(queue, id, token)
  else
    done = delayed_give_back(queue, id, token, now + tonumber(ARGV[3]), now)
  end
  if done then
    if redis.call('EXISTS', KEYS[1]) == 1 then
      redis.call('HSET', KEYS[1], id, word)
    end
  else
    done = redis.call('HGET', KEYS[1], id) == word
  end
  answers[#answers + 1] = done and 1 or 0
end
return answers
