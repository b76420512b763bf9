-- Finds jobs that lost their worker, their bell or their time. Atomic, so any number of workers may call it.
-- prefix, grace_s, limit, most jobs of a tenant that run at once or '', shortest time between two rounds
-- -> {queues to ring, queues whose bells may be lost, ids of unreadable records}, each a list; none of them if
-- another caller has just made a round
local grace_s, limit, most, every_s = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local doubtful, unreadable = {}, {}
local last = num(call_anew('GET', P .. ':round'))
if last and now() >= last and now() - last < every_s then return {rings, doubtful, unreadable} end
redis.call('SET', P .. ':round', stamp(now()))

-- After a time without any round, Redis or all workers were away, and no lease could be renewed. Workers that
-- live get the time to renew theirs, once: rounds may be that far apart.
local AWAY_S, SECOND_CHANCE_S = 10, 5
if last and now() - last > AWAY_S then
  local chance, had = stamp(now() + SECOND_CHANCE_S), stamp(last + SECOND_CHANCE_S)
  local ends = redis.call('ZRANGEBYSCORE', LEASES, '-inf', chance, 'WITHSCORES')
  for n = 1, #ends, 2 do
    if stamp(ends[n + 1]) ~= had then redis.call('ZADD', LEASES, chance, ends[n]) end
  end
end

-- Lists the records that are due. An unreadable record is looked at again later, so that it neither stops this
-- round nor fills the next ones.
local LATER_S = 300
local function due(key)
  local found = {}
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. key, '-inf', stamp(now()), 'LIMIT', 0, limit)) do
    local rec = read(id)
    if is_sound(rec) then
      found[#found + 1] = rec
    elseif redis.call('EXISTS', job_key(id)) == 0 then
      redis.call('ZREM', P .. key, id)
    else
      redis.call('ZADD', P .. key, stamp(now() + LATER_S), id)
      unreadable[#unreadable + 1] = id
    end
  end
  return found
end

-- Groups of the two failures that are the reaper's own, as failure_groups.py would name them.
local GROUPS = {job_timeout = '00000001', worker_lost = '00000002'}
for _, rec in ipairs(due(':leases')) do
  if rec.state == 'canceling' then
    cancel_now(rec, rec.stage)
  elseif rec.state ~= 'running' then
    redis.call('ZREM', LEASES, rec.id)
  elseif rec.overdue then
    -- Its worker went on to renew the lease. If it had vanished, the job would be tried again, however late.
    fail_for_good(rec, failure('job_timeout',
      'the attempt ran longer than timeout_s and its worker did not stop it', rec.stage, false, rec.attempt),
      'job_timeout', GROUPS.job_timeout)
  elseif rec.draining then
    redis.call('HINCRBY', job_key(rec.id), 'max_attempts', 1)
    note_attempt(rec, 'returned')
    requeue(rec)
    emit(rec.id, 'state', 'queued', rec.attempt, 'message', 'its worker was killed while it shut down')
    add_ring(enqueue(rec))
  else
    local why = failure('worker_lost', 'worker ' .. (rec.worker or '?') .. ' vanished', rec.stage, true, rec.attempt)
    if tonumber(rec.attempt) >= tonumber(rec.max_attempts) then
      fail_for_good(rec, why, 'worker_lost', GROUPS.worker_lost)
    else
      note_attempt(rec, 'failed', why)
      requeue(rec, 'failure', why, 'suspect', '1')
      count_retry(rec, why)
      emit(rec.id, 'retry', 'queued', rec.attempt, 'message', 'its worker vanished')
      add_ring(enqueue(rec))
    end
  end
end

for _, rec in ipairs(due(':delayed')) do
  if rec.state == 'queued' then
    add_ring(enqueue(rec))
  else
    redis.call('ZREM', P .. ':delayed', rec.id)
    call_anew('ZREM', delayed(rec.queue), rec.id)
  end
end

for _, rec in ipairs(due(':startby')) do
  redis.call('ZREM', P .. ':startby', rec.id)
  if rec.state == 'queued' and rec.attempt == '0' then expire_now(rec) end
end

-- Ends flights whose leaders somebody deleted, or Redis evicted: a few in each round, as with queues.
local MOST_FLIGHTS = 4
for _, key in ipairs(call_anew('ZRANGE', FLIGHTS, 0, MOST_FLIGHTS - 1)) do
  if call_anew('EXISTS', followers(key)) == 0 then
    redis.call('ZREM', FLIGHTS, key)
  else
    redis.call('ZADD', FLIGHTS, stamp(now()), key)
    if not find_other_leader(key, '') then end_flight(key, true) end
  end
end
ring_for_woken(redis.call('HGET', DISPATCH, 'wake') or '')

-- Gives the tenants of waiting jobs their turns again, after somebody deleted these or Redis evicted them.
local function restore_turns(queue)
  for _, id in ipairs(redis.call('ZRANGE', waiting(queue), 0, limit - 1)) do
    local tenant = get(id, 'tenant')[1] or ''
    if redis.call('EXISTS', line(queue, tenant)) == 1 then redis.call('ZADD', turns(queue), 0, tenant) end
  end
end

-- Tells if jobs of the queue may begin. A tenant whose running jobs somebody deleted is held no longer.
local function may_begin(queue)
  if most then
    local tenant = call_anew('ZRANDMEMBER', held(queue))
    if tenant and room(tenant, most) > 0 then move_tenant(held(queue), turns(queue), tenant) end
  end
  if redis.call('EXISTS', turns(queue)) == 1 then return true end
  if redis.call('EXISTS', held(queue)) == 0 then restore_turns(queue) end
  return redis.call('EXISTS', turns(queue)) == 1
end

-- A round looks at a few queues, those that none has looked at for longest: it costs the same however many there are.
local MOST_QUEUES = 8
local queues = redis.call('ZRANGE', QUEUES, 0, MOST_QUEUES - 1)
local looked_at, fields = {}, {}
for _, queue in ipairs(queues) do
  looked_at[#looked_at + 1], looked_at[#looked_at + 2] = stamp(now()), queue
  for _, suffix in ipairs({'', ':at', ':paused'}) do fields[#fields + 1] = queue .. suffix end
end
local states = {}
if #queues > 0 then
  redis.call('ZADD', QUEUES, unpack(looked_at))
  states = redis.call('HMGET', DISPATCH, unpack(fields))
end
local asked = {}
for n, queue in ipairs(queues) do
  local count, at, is_paused = num(states[3 * n - 2]) or 0, states[3 * n - 1], states[3 * n]
  if may_begin(queue) then
    if is_old(at, grace_s) and not is_paused then
      if count > 0 then
        doubtful[#doubtful + 1] = queue
        asked[#asked + 1], asked[#asked + 2] = queue .. ':at', stamp(now()) -- the broker is asked once in this time
      else
        add_ring(count_bell(queue))
      end
    end
  elseif redis.call('EXISTS', waiting(queue), running(queue), delayed(queue)) == 0 then
    redis.call('ZREM', QUEUES, queue)
  end
end
if #asked > 0 then redis.call('HSET', DISPATCH, unpack(asked)) end
return {rings, doubtful, unreadable}
