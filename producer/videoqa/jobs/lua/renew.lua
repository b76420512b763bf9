-- prefix, lease_s, id and token of each lease... -> 'ok', 'cancel' or 'lost' for each
local lease_s = tonumber(ARGV[2])

local function renew(id, token)
  local rec = read(id)
  local answer = fence(rec, token)
  if answer == 'lost' then return answer end
  -- A worker that hangs past its deadline cannot keep the job by a healthy heartbeat.
  local deadline = num(rec.deadline) or now
  if now > deadline then
    if now > deadline + lease_s then return 'lost' end
    set(id, 'overdue', '1')
  end
  redis.call('ZADD', LEASES, stamp(now + lease_s), id)
  return answer
end

local answers = {}
for n = 3, #ARGV, 2 do answers[#answers + 1] = renew(ARGV[n], ARGV[n + 1]) end
return answers
