-- prefix, id, attempt, bell, worker, lease_s, token, queue
-- -> {'run', request, created_at, timeout_s, queued_s, kept} or {'drop', why}
local id, attempt, bell, worker, token, queue = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5], ARGV[7], ARGV[8]
local heard = tonumber(redis.call('HGET', P .. ':bells', queue .. ':heard') or '0')
if bell > heard then redis.call('HSET', P .. ':bells', queue .. ':heard', bell) end

local rec = get(id, 'state', 'attempt', 'max_attempts', 'request', 'created_at', 'timeout_s',
  'start_by', 'next_at', 'token', 'rung_at', 'kept')
if not rec[1] then return {'drop', 'unknown'} end
local function run()
  return {'run', rec[4], rec[5], rec[6], stamp(now - tonumber(rec[10] or rec[5])), rec[11] or ''}
end
if rec[1] == 'running' and rec[9] == token then return run() end  -- the reply was lost
if rec[1] ~= 'queued' then return {'drop', rec[1]} end
if tonumber(attempt) ~= tonumber(rec[2]) + 1 then return {'drop', 'older attempt'} end
if rec[8] and now < tonumber(rec[8]) then return {'drop', 'not due'} end
if rec[7] and now > tonumber(rec[7]) then
  expire_now(id, rec[2])
  return {'drop', 'expired'}
end
forget_places(id)
-- Started in time: a later attempt is not too late.
redis.call('HDEL', job_key(id), 'start_by')
-- The attempt counts before any work is done: a video that kills the process cannot loop.
set(id, 'state', 'running', 'stage', 'fetching', 'attempt', attempt, 'worker', worker,
  'token', token, 'started_at', stamp(now), 'deadline', stamp(now + tonumber(rec[6])))
redis.call('ZADD', P .. ':leases', stamp(now + tonumber(ARGV[6])), id)
emit(id, 'state', 'running', attempt, 'stage', 'fetching')
return run()
