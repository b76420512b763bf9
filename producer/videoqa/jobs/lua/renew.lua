-- prefix, id, token, lease_s -> 'ok', 'cancel' or 'lost'
local id, lease_s = ARGV[2], tonumber(ARGV[4])
local answer = fence(id, ARGV[3])
if answer == 'lost' then return answer end
-- A worker that hangs past its deadline cannot keep the job by a healthy heartbeat.
local deadline = num(get(id, 'deadline')[1]) or now
if now > deadline then
  if now > deadline + lease_s then return 'lost' end
  set(id, 'overdue', '1')
end
redis.call('ZADD', LEASES, stamp(now + lease_s), id)
return answer
