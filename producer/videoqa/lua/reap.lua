-- Finds what lost its worker, its bell or its time. Atomic, so any number of workers may call it.
-- prefix, grace_s, limit, queues that the broker says are empty... -> {{id, attempt, bell, queue}...} to ring
local grace_s, limit = tonumber(ARGV[2]), tonumber(ARGV[3])
local bells = {}

-- No reaper was heard for long: Redis, or everybody, was away, so no heartbeat could be heard
-- either. Whoever still lives gets the time to renew.
local AWAY_S, SECOND_CHANCE_S = 10, 5
local last = redis.call('GETSET', P .. ':round', stamp(now))
if last and now - tonumber(last) > AWAY_S then
  local chance = stamp(now + SECOND_CHANCE_S)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. ':leases', '-inf', chance)) do
    redis.call('ZADD', P .. ':leases', chance, id)
  end
end

local function due(key)
  return redis.call('ZRANGEBYSCORE', P .. key, '-inf', stamp(now), 'LIMIT', 0, limit)
end

for _, id in ipairs(due(':leases')) do
  local rec = get(id, 'state', 'attempt', 'max_attempts', 'deadline', 'stage', 'worker')
  local attempt = rec[2]
  local stage = rec[5] or nil
  if rec[1] == 'canceling' then
    cancel_now(id, attempt, stage)
  elseif rec[1] ~= 'running' then
    redis.call('ZREM', P .. ':leases', id)
  elseif now > tonumber(rec[4]) then
    finalize(id, 'failed', 'failure', failure('job_timeout',
      'the attempt ran longer than timeout_s and its worker did not stop it', stage, false, attempt))
  else
    local why = failure('worker_lost', 'worker ' .. (rec[6] or '?') .. ' vanished', stage, true, attempt)
    if tonumber(attempt) >= tonumber(rec[3]) then
      finalize(id, 'failed', 'failure', why)
    else
      requeue(id, 'failure', why)
      emit(id, 'retry', 'queued', attempt, 'message', 'its worker vanished')
      bells[#bells + 1] = ring(id)
    end
  end
end

for _, id in ipairs(due(':delayed')) do
  redis.call('ZREM', P .. ':delayed', id)
  if get(id, 'state')[1] == 'queued' then bells[#bells + 1] = ring(id) end
end

for _, id in ipairs(due(':startby')) do
  local rec = get(id, 'state', 'attempt')
  redis.call('ZREM', P .. ':startby', id)
  if rec[1] == 'queued' then expire_now(id, rec[2]) end
end

-- A queued job's bell is lost if a later one of its queue was heard, or if the broker's queue
-- is empty. What still waits in the broker is neither, and is not even looked at.
local function lost(queue, upto)
  local waiting = P .. ':waiting:' .. queue
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', waiting, '-inf', upto, 'LIMIT', 0, limit)) do
    local rec = get(id, 'state', 'rung_at')
    if rec[1] ~= 'queued' then
      redis.call('ZREM', waiting, id)
    elseif tonumber(rec[2]) + grace_s < now then
      bells[#bells + 1] = ring(id)
    end
  end
end

local empty = {}
for n = 4, #ARGV do empty[ARGV[n]] = true end
for _, queue in ipairs(redis.call('SMEMBERS', P .. ':queues')) do
  local heard = redis.call('HGET', P .. ':bells', queue .. ':heard') or '0'
  lost(queue, empty[queue] and '+inf' or heard)
end
return bells
