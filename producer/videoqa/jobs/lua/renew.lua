-- prefix, id, token, lease_s -> 'ok', 'cancel' or 'lost'
local id, lease_s = ARGV[2], tonumber(ARGV[4])
local answer = fence(id, ARGV[3])
if answer == 'lost' then return answer end
-- A worker that hangs past its deadline cannot keep the job by a healthy heartbeat.
local rec = get(id, 'deadline', 'stage')
if rec[2] ~= 'queued' and now > tonumber(rec[1]) then
  if now > tonumber(rec[1]) + lease_s then return 'lost' end
  set(id, 'overdue', '1')
end
redis.call('ZADD', P .. ':leases', stamp(now + lease_s), id)
return answer
