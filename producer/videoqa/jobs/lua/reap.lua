-- Finds jobs that lost their worker, their bell or their time. Atomic, so any number of workers may call it.
-- prefix, grace_s, limit, most jobs of a tenant that run at once or '', how many of the queues are empty, queues
-- that the broker says are empty, and others that it says are not... -> {{id, attempt, bell, queue}...} to ring,
-- and the ids of unreadable records
local grace_s, limit, most = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local bells, ended, unreadable = {}, {}, {}

-- After a time without any round, Redis or all workers were away, and no lease could be renewed. Workers that
-- live get the time to renew theirs, once: rounds may be that far apart.
local AWAY_S, SECOND_CHANCE_S = 10, 5
local last = num(call_anew('GETSET', P .. ':round', stamp(now)))
if last and now - last > AWAY_S then
  local chance, had = stamp(now + SECOND_CHANCE_S), stamp(last + SECOND_CHANCE_S)
  local ends = redis.call('ZRANGEBYSCORE', LEASES, '-inf', chance, 'WITHSCORES')
  for n = 1, #ends, 2 do
    if stamp(ends[n + 1]) ~= had then redis.call('ZADD', LEASES, chance, ends[n]) end
  end
end

-- Lists the ids that are due. An unreadable record is looked at again later, so that it neither stops this
-- round nor fills the next ones.
local LATER_S = 300
local function due(key)
  local found = {}
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. key, '-inf', stamp(now), 'LIMIT', 0, limit)) do
    if is_sound(id) then
      found[#found + 1] = id
    elseif redis.call('EXISTS', job_key(id)) == 0 then
      redis.call('ZREM', P .. key, id)
    else
      redis.call('ZADD', P .. key, stamp(now + LATER_S), id)
      unreadable[#unreadable + 1] = id
    end
  end
  return found
end

for _, id in ipairs(due(':leases')) do
  ended[#ended + 1] = id
  local rec = get(id, 'state', 'attempt', 'max_attempts', 'overdue', 'stage', 'worker')
  local attempt = rec[2]
  local stage = rec[5] or nil
  if rec[1] == 'canceling' then
    cancel_now(id, attempt, stage)
  elseif rec[1] ~= 'running' then
    redis.call('ZREM', LEASES, id)
  elseif rec[4] then
    -- Its worker went on to renew the lease. If it had vanished, the job would be tried again, however late.
    finalize(id, 'failed', 'failure', failure('job_timeout',
      'the attempt ran longer than timeout_s and its worker did not stop it', stage, false, attempt))
  else
    local why = failure('worker_lost', 'worker ' .. (rec[6] or '?') .. ' vanished', stage, true, attempt)
    if tonumber(attempt) >= tonumber(rec[3]) then
      finalize(id, 'failed', 'failure', why)
    else
      requeue(id, 'failure', why, 'suspect', '1')
      emit(id, 'retry', 'queued', attempt, 'message', 'its worker vanished')
      bells[#bells + 1] = enqueue(id)
    end
  end
end

for _, id in ipairs(due(':delayed')) do
  redis.call('ZREM', P .. ':delayed', id)
  if get(id, 'state')[1] == 'queued' then bells[#bells + 1] = enqueue(id) end
end

for _, id in ipairs(due(':startby')) do
  local rec = get(id, 'state', 'attempt')
  redis.call('ZREM', P .. ':startby', id)
  if rec[1] == 'queued' then expire_now(id, rec[2]) end
end

for _, id in ipairs(ended) do
  for _, bell in ipairs(ring_next(id, most)) do bells[#bells + 1] = bell end
end

-- Counts the lost bells of a queue: it has lacked them for longer than bells take. A caller that did not ask the
-- broker (nil) cannot say that none is missing.
local function missing(queue, is_empty)
  local short = count_lacking(queue, most, is_empty)
  local since = redis.call('HGET', P .. ':bells', queue .. ':short')
  if short <= 0 then
    if since and is_empty ~= nil then redis.call('HDEL', P .. ':bells', queue .. ':short') end
    return 0
  end
  if not num(since) then redis.call('HSET', P .. ':bells', queue .. ':short', stamp(now)) end
  if now - (num(since) or now) < grace_s then return 0 end
  if short > limit then return limit end -- the next round rings for the others, which have missed theirs as long
  redis.call('HDEL', P .. ':bells', queue .. ':short')
  return short
end

local function ring_again(queue, count)
  for _, tenant in ipairs(redis.call('ZRANGE', turns(queue), 0, -1)) do
    for _, id in ipairs(redis.call('ZRANGE', line(queue, tenant), 0, count - 1)) do
      bells[#bells + 1] = count_bell(id, num(get(id, 'attempt')[1]) or 0, queue)
      count = count - 1
    end
    if count == 0 then return end
  end
end

local empty = {}
for n = 6, #ARGV do empty[ARGV[n]] = n < 6 + tonumber(ARGV[5]) end
for _, queue in ipairs(redis.call('SMEMBERS', P .. ':queues')) do
  local paused = redis.call('SISMEMBER', P .. ':paused', queue) == 1
  local count = paused and 0 or missing(queue, empty[queue])
  if count > 0 then ring_again(queue, count) end
  if redis.call('EXISTS', turns(queue)) == 0 then redis.call('SREM', P .. ':queues', queue) end
end
return {bells, unreadable}
