-- prefix, lease_s, the worker shuts down 0|1, leases: id and token of each in one text, ids without their `job_`
-- -> 'ok', 'cancel' or 'lost' for each
local lease_s, is_draining = tonumber(ARGV[2]), ARGV[3] == '1'

local function renew(id, token)
  local rec = read(id)
  local answer = fence(rec, token)
  if answer == 'lost' then return answer end
  -- A worker that hangs past its deadline cannot keep the job by a healthy heartbeat.
  local deadline = num(rec.deadline) or now()
  if now() > deadline then
    if now() > deadline + lease_s then return 'lost' end
    set(id, 'overdue', '1')
  end
  -- A worker that shuts down may be killed: its job is not to blame.
  if is_draining and not rec.draining then set(id, 'draining', '1') end
  redis.call('ZADD', P .. ':leases', stamp(now() + lease_s), id)
  return answer
end

local answers = {}
for id, token in string.gmatch(ARGV[4], '(%S+) (%S+)') do answers[#answers + 1] = renew('job_' .. id, token) end
return answers
