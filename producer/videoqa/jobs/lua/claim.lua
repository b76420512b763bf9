-- prefix, id, attempt, bell, worker, lease_s, token, queue
-- -> {'run', id, attempt, request, created_at, timeout_s, queued_s, kept, stage} or {'drop', why}
local named, bell, worker, token, queue = ARGV[2], tonumber(ARGV[4]), ARGV[5], ARGV[7], ARGV[8]
local CALL_AGAIN_S = 600
local heard = tonumber(redis.call('HGET', P .. ':bells', queue .. ':heard') or '0')
if bell > heard then redis.call('HSET', P .. ':bells', queue .. ':heard', bell) end

local function run(id)
  local rec = get(id, 'attempt', 'request', 'created_at', 'timeout_s', 'rung_at', 'kept', 'stage')
  return {'run', id, rec[1], rec[2], rec[3], rec[4], stamp(now - tonumber(rec[5] or rec[3])), rec[6] or '', rec[7]}
end

-- The reply was lost, and this is the same call again.
local mine = redis.call('GET', P .. ':claimed:' .. token) or named
local before = get(mine, 'state', 'token')
if before[1] == 'running' and before[2] == token then return run(mine) end

if redis.call('SISMEMBER', P .. ':paused', queue) == 1 then return {'drop', 'its queue is paused'} end
local id, tenant
local MOST_EXPIRED = 100
for n = 0, MOST_EXPIRED do
  -- Redis is not kept from others for a day's backlog: there are as many bells as jobs in it.
  if n == MOST_EXPIRED then return {'drop', 'start_by has passed'} end
  id, tenant = next_in_line(queue)
  if not id then return {'drop', get(named, 'state')[1] or 'unknown'} end
  local rec = get(id, 'attempt', 'start_by')
  if not rec[2] or now <= tonumber(rec[2]) then break end
  expire_now(id, rec[1])
end

local turn = redis.call('ZSCORE', turns(queue), tenant)
redis.call('HSET', P .. ':bells', queue .. ':turn', turn)
redis.call('ZINCRBY', turns(queue), 1, tenant)
if id ~= named then redis.call('SET', P .. ':claimed:' .. token, id, 'EX', CALL_AGAIN_S) end
forget_places(id)
-- Started in time: a later attempt is not too late.
redis.call('HDEL', job_key(id), 'start_by', 'overdue')
-- The attempt counts before any work is done: a video that kills the process cannot loop.
local rec = get(id, 'attempt', 'timeout_s', 'max_attempts', 'suspect')
local attempt = tonumber(rec[1]) + 1
-- Before it is given up on, it waits in its worker until nothing runs there that could be to blame.
local stage = rec[4] and attempt >= tonumber(rec[3]) and 'queued' or 'fetching'
set(id, 'state', 'running', 'stage', stage, 'attempt', attempt, 'worker', worker,
  'token', token, 'started_at', stamp(now), 'deadline', stamp(now + tonumber(rec[2])))
redis.call('ZADD', P .. ':leases', stamp(now + tonumber(ARGV[6])), id)
emit(id, 'state', 'running', attempt, 'stage', stage)
return run(id)
