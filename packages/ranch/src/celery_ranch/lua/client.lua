-- Change what is kept of one client; everything else of it, its turns above all, stays as it is.
--
-- KEYS  see backlog.lua
-- ARGV  1 client, 2 label, 3... field and value, alternating: w weight, x cap, y backlog limit, h paused ('1'), d draining ('1');
--       the value '' takes the field away
-- returns  tickets to issue (addressed)
--@include celery_toolkit_core:clock
--@include celery_ranch:backlog
local client, label = ARGV[1], ARGV[2]
local record = client_of(client, label)
record.k = label
for index = 3, #ARGV, 2 do
  local field, value = ARGV[index], ARGV[index + 1]
  if value == '' then
    record[field] = nil
  elseif field == 'h' or field == 'd' then
    record[field] = true
  else
    record[field] = tonumber(value)
  end
end
keep_client(client, record)
redis.call('ZADD', ACTIVE, now_ms(), client)
local wanted = {}
unhold(client, record, math.min(record.n, (record.x or record.n + record.r) - record.r), wanted)
return addressed(wanted)
