-- prefix, id, attempt, bell, worker, lease_s, token, queue, is_idle 0|1, most jobs of a tenant that run at once or ''
-- -> {'run', id, attempt, request, created_at, timeout_s, queued_s, kept, exclusive 0|1}, {'wait', id} or
-- {'drop', why} or {'unreadable', id}
local named, bell, worker, token, queue = ARGV[2], tonumber(ARGV[4]), ARGV[5], ARGV[7], ARGV[8]
local is_idle, most = ARGV[9] == '1', tonumber(ARGV[10])
local CALL_AGAIN_S = 600
local heard = num(redis.call('HGET', P .. ':bells', queue .. ':heard')) or 0
if bell > heard then redis.call('HSET', P .. ':bells', queue .. ':heard', bell) end

local function run(id)
  local rec = get(id, 'attempt', 'request', 'created_at', 'timeout_s', 'rung_at', 'kept')
  return {'run', id, rec[1], rec[2], rec[3], rec[4], stamp(now - tonumber(rec[5] or rec[3])), rec[6] or '',
    is_exclusive(id, rec[1]) and '1' or '0'}
end

-- A call repeated after a lost reply gets its claim again.
local mine = call_anew('GET', P .. ':claimed:' .. token) or named
local before = get(mine, 'state', 'token')
if before[1] == 'running' and before[2] == token and is_sound(mine) then return run(mine) end

if redis.call('SISMEMBER', P .. ':paused', queue) == 1 then return {'drop', 'its queue is paused'} end

-- An exclusive attempt is for an idle worker. A busy one that meets such a job is reserved for it: it
-- claims nothing until it is idle and gets the job, or another worker did, so that a fleet that is always
-- busy comes to it. One worker a queue is reserved, as long as it calls again; the others pass the job by and
-- take what stands behind it.
local RESERVED, RESERVED_S, MOST_PASSED = P .. ':reserved:' .. queue, 10, 100
local reserved = call_anew('HMGET', RESERVED, 'worker', 'job')

local function may_be_passed_by(id)
  return not is_idle and is_exclusive(id, get(id, 'attempt')[1] + 1)
end

local function reserve_for(id)
  redis.call('HSET', RESERVED, 'worker', worker, 'job', id)
  redis.call('EXPIRE', RESERVED, RESERVED_S)
  return {'wait', id}
end

local id, tenant
if reserved[1] == worker and reserved[2] then
  tenant = get(reserved[2], 'tenant')[1] or ''
  local stands = is_well_placed(reserved[2], queue, tenant) and redis.call('ZSCORE', line(queue, tenant), reserved[2])
  if stands and room(tenant, most) > 0 then
    id = reserved[2]
    if may_be_passed_by(id) then return reserve_for(id) end
  end
  redis.call('DEL', RESERVED)
  reserved = {}
end

local reserves, passed, count = false, {}, 0
local function is_passed_by(id)
  if reserves or not may_be_passed_by(id) then return false end
  -- A claim passes by no more than these: where so many wait, more workers are reserved.
  reserves = not reserved[1] or count >= MOST_PASSED
  if not reserves and not passed[id] then passed[id], count = true, count + 1 end
  return not reserves
end

local MOST_EXPIRED = 100
for n = 0, id and -1 or MOST_EXPIRED do
  -- A day's backlog does not block Redis: there are as many bells as jobs, and each expires some.
  if n == MOST_EXPIRED then return {'drop', 'start_by has passed'} end
  id, tenant = next_in_line(queue, most, is_passed_by)
  if not id then
    if waiting(queue, most) < waiting(queue) then
      return {'drop', 'the tenants that wait run as many jobs as they may'}
    end
    return {'drop', get(named, 'state')[1] or 'unknown'}
  end
  if reserves then return reserve_for(id) end
  if not is_well_placed(id, queue, tenant) then
    redis.call('ZREM', line(queue, tenant), id)
    return {'unreadable', id}
  end
  local rec = get(id, 'attempt', 'start_by')
  if not rec[2] or now <= tonumber(rec[2]) then break end
  expire_now(id, rec[1])
end

-- A tenant whose job was passed by has an old turn; it gets one job for it, not one for each turn missed.
local last = num(redis.call('HGET', P .. ':bells', queue .. ':turn')) or 0
local turn = math.max(last, num(redis.call('ZSCORE', turns(queue), tenant)) or last)
redis.call('HSET', P .. ':bells', queue .. ':turn', turn)
redis.call('ZADD', turns(queue), turn + 1, tenant)
if id ~= named then redis.call('SET', P .. ':claimed:' .. token, id, 'EX', CALL_AGAIN_S) end
forget_places(id)
-- A job that was started in time does not expire before a later attempt.
redis.call('HDEL', job_key(id), 'start_by', 'overdue')
-- The attempt is counted before any work is done: a video that kills the process cannot loop.
local rec = get(id, 'attempt', 'timeout_s')
local attempt = tonumber(rec[1]) + 1
set(id, 'state', 'running', 'stage', 'fetching', 'attempt', attempt, 'worker', worker,
  'token', token, 'started_at', stamp(now), 'deadline', stamp(now + tonumber(rec[2])))
redis.call('ZADD', LEASES, stamp(now + tonumber(ARGV[6])), id)
call_anew('ZADD', running(tenant), 0, id)
emit(id, 'state', 'running', attempt, 'stage', 'fetching')
return run(id)
