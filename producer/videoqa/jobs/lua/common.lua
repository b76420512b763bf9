-- Functions that all transitions share. ARGV[1] is the prefix; the clock is Redis' own.
local P = ARGV[1]
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1e6
local STREAM_LENGTH = 1000
local GONE_EXTRA_S = 7 * 86400
local INDEX_S = 100 * 86400 -- longer than any record lives after its job

local function stamp(seconds) return string.format('%.6f', seconds) end
local function job_key(id) return P .. ':job:' .. id end
local function segments_key(id) return P .. ':segments:' .. id end

-- Returns fields of a record, none if its key holds no hash.
local function get(id, ...)
  local rec = redis.pcall('HMGET', job_key(id), ...)
  if not rec.err then return rec end
  if string.find(rec.err, 'WRONGTYPE', 1, true) then return {} end
  return redis.call('HMGET', job_key(id), ...)
end
local function set(id, ...) redis.call('HSET', job_key(id), ...) end

-- Calls a command on a key whose content may be lost; one that holds another type is deleted first.
local function call_anew(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if string.find(reply.err, 'WRONGTYPE', 1, true) or string.find(reply.err, 'exhausted', 1, true) then
    redis.call('DEL', key)
  end
  return redis.call(command, key, ...)
end

-- Returns the number that a text is, nil if it is none that times and scores can be.
local function num(text)
  local n = text and string.find(text, '^%-?[%d.eE+-]+$') and tonumber(text)
  if n and n > -1e12 and n < 1e12 then return n end
end

-- Tells if a record has what the transitions compute with. They leave one alone that has not: a newer release
-- or another program wrote it, and an error in a script would stop a queue, a reaper or all leases of a worker.
local function is_sound(id)
  local rec = get(id, 'state', 'queue', 'attempt', 'max_attempts', 'ttl_s', 'timeout_s', 'created_at',
    'bell', 'rung_at', 'kept_at', 'start_by', 'deadline')
  for n = 1, 12 do
    local is_number = n <= 2 or num(rec[n]) and (n > 4 or string.find(rec[n], '^%d+$'))
    if not rec[n] and n <= 7 or rec[n] and not is_number then return false end
  end
  return redis.call('HEXISTS', job_key(id), 'request') == 1 -- its text may be long
end

local function emit(id, kind, state, attempt, ...)
  call_anew('XADD', P .. ':events:' .. id, 'MAXLEN', '~', STREAM_LENGTH, '*',
    'type', kind, 'state', state, 'attempt', attempt, 'at', stamp(now), ...)
end

local function failure(code, message, stage, retryable, attempt)
  local body = {code = code, message = message, retryable = retryable, attempt = tonumber(attempt)}
  if stage then body.stage = stage end
  return cjson.encode(body)
end

-- Tenants take turns in a queue: each has a line of its own, and `turns` orders them by the
-- number of jobs begun. A tenant that comes to stand in line again joins at the end of this round.
local function line(queue, tenant)
  return P .. ':waiting:' .. queue .. (tenant == '' and '' or ':' .. tenant)
end
local function turns(queue) return P .. ':turns:' .. queue end

-- Tells if a job that stands in this line can be begun, or passed by: its record is sound, and of this line.
local function is_well_placed(id, queue, tenant)
  local rec = get(id, 'queue', 'tenant')
  return rec[1] == queue and (rec[2] or '') == tenant and is_sound(id)
end

local function stand_in_line(id, queue, tenant, place)
  local key = line(queue, tenant)
  if redis.call('EXISTS', key) == 0 then
    local turn = num(redis.call('HGET', P .. ':bells', queue .. ':turn')) or 0
    redis.call('ZADD', turns(queue), turn + 1, tenant)
  end
  redis.call('ZADD', key, place, id)
  redis.call('SADD', P .. ':queues', queue)
end

-- Running jobs of a tenant, by their leases: an id without a lease there does not run.
local LEASES = P .. ':leases'
local function running(tenant) return P .. ':running' .. (tenant == '' and '' or ':' .. tenant) end

-- Returns how many more jobs of the tenant may begin; `most` of them may run at once, nil: any number.
local function room(tenant, most)
  if not most then return math.huge end
  local count = call_anew('ZCARD', running(tenant))
  -- Only a record that somebody deleted leaves an id behind.
  if count >= most then count = redis.call('ZINTERSTORE', running(tenant), 2, running(tenant), LEASES) end
  return math.max(most - count, 0)
end

local function leave_line(id)
  local rec = get(id, 'queue', 'tenant')
  if not rec[1] then return end
  local queue, tenant = rec[1], rec[2] or ''
  local key = line(queue, tenant)
  if redis.call('ZREM', key, id) == 1 and redis.call('EXISTS', key) == 0 then
    redis.call('ZREM', turns(queue), tenant)
  end
end

-- Returns the job whose turn it is and its tenant, or nothing; jobs that `is_passed_by` accepts, and those of
-- tenants that have `most` jobs running, keep their places. One without a record, which somebody deleted or
-- Redis evicted, leaves its line. One that is not well placed is returned, and the caller takes it out.
local function next_in_line(queue, most, is_passed_by)
  local round = 0
  while true do
    local tenant = redis.call('ZRANGE', turns(queue), round, round)[1]
    if not tenant then return nil end
    local key, place = line(queue, tenant), 0
    local is_full = room(tenant, most) == 0
    while not is_full do
      local id = redis.call('ZRANGE', key, place, place)[1]
      if not id then break end
      if redis.call('EXISTS', job_key(id)) == 0 then
        redis.call('ZREM', key, id)
      elseif is_well_placed(id, queue, tenant) and is_passed_by(id) then
        place = place + 1
      else
        return id, tenant
      end
    end
    if is_full or place > 0 then round = round + 1 else redis.call('ZREM', turns(queue), tenant) end
  end
end

-- Returns how many jobs wait in a queue; where `most` is given, only those that may begin now.
local function waiting(queue, most)
  local count = 0
  for _, tenant in ipairs(redis.call('ZRANGE', turns(queue), 0, -1)) do
    count = count + math.min(redis.call('ZCARD', line(queue, tenant)), room(tenant, most))
  end
  return count
end

local function forget_places(id)
  leave_line(id)
  redis.call('ZREM', LEASES, id)
  call_anew('ZREM', running(get(id, 'tenant')[1] or ''), id)
  redis.call('ZREM', P .. ':delayed', id)
  redis.call('ZREM', P .. ':startby', id)
end

-- Counts one more bell for a queue and returns it; the caller publishes it. The worker that hears it claims
-- the job whose turn it is; `id` only says for which job it was rung.
local function count_bell(id, attempt, queue)
  local rung = queue .. ':rung'
  if not num(redis.call('HGET', P .. ':bells', rung) or '0') then redis.call('HDEL', P .. ':bells', rung) end
  local bell = redis.call('HINCRBY', P .. ':bells', rung, 1)
  return {id, tostring(tonumber(attempt) + 1), tostring(bell), queue}
end

-- Counts the bells that a queue lacks: fewer are on their way than jobs wait that may begin. Bells after the last
-- one heard are on their way, since a queue is first in, first out; none if the broker says that it is empty.
local function count_lacking(queue, most, is_empty)
  local numbers = redis.call('HMGET', P .. ':bells', queue .. ':rung', queue .. ':heard')
  local rung, heard = num(numbers[1]) or 0, num(numbers[2]) or 0
  if heard > rung then redis.call('HSET', P .. ':bells', queue .. ':rung', heard) end
  return waiting(queue, most) - (is_empty and 0 or math.max(rung - heard, 0))
end

-- Returns bells for jobs whose tenant could run no more until the attempt at this one ended.
local function ring_next(id, most)
  local tenant, bells = get(id, 'tenant')[1] or '', {}
  if not most then return bells end
  for _, queue in ipairs(redis.call('SMEMBERS', P .. ':queues')) do
    local count = math.min(room(tenant, most), count_lacking(queue, most, false))
    if count > 0 and redis.call('SISMEMBER', P .. ':paused', queue) == 0 then
      for _, next_id in ipairs(redis.call('ZRANGE', line(queue, tenant), 0, count - 1)) do
        bells[#bells + 1] = count_bell(next_id, num(get(next_id, 'attempt')[1]) or 0, queue)
      end
    end
  end
  return bells
end

-- Tells if the job's next attempt is to run with nothing beside it. One at most of the jobs of a process that
-- died is guilty, so the last attempt of a job that lost its workers is exclusive; unless its answers are kept
-- and only to be stored.
local function is_exclusive(id, attempt)
  local rec = get(id, 'suspect', 'max_attempts')
  if not rec[1] or tonumber(attempt) < tonumber(rec[2]) then return false end
  return redis.call('HEXISTS', job_key(id), 'kept') == 0
end

-- Puts the job into its line and returns the bell to ring. The job has the place of its first bell: a
-- backlog that came later does not begin before its next attempt.
local function enqueue(id)
  local rec = get(id, 'queue', 'attempt', 'tenant', 'created_at', 'bell')
  local bell = count_bell(id, rec[2], rec[1])
  if not rec[5] then set(id, 'bell', bell[3]) end
  if rec[4] ~= stamp(now) then set(id, 'rung_at', stamp(now)) end
  redis.call('HDEL', job_key(id), 'next_at')
  stand_in_line(id, rec[1], rec[3] or '', rec[5] or bell[3])
  return bell
end

-- Makes the followers of a job that has ended due: they find its answer, or ask themselves.
local function release_followers(id)
  local key = get(id, 'flight')[1]
  if not key then return end
  redis.call('HDEL', job_key(id), 'flight')
  redis.call('DEL', P .. ':flight:' .. key)
  for _, follower in ipairs(call_anew('SMEMBERS', P .. ':followers:' .. key)) do
    local rec = get(follower, 'state', 'follows')
    if rec[1] == 'queued' and rec[2] then -- unless it was canceled, and perhaps retried
      redis.call('HDEL', job_key(follower), 'follows')
      redis.call('ZADD', P .. ':delayed', stamp(now), follower)
    end
  end
  redis.call('DEL', P .. ':followers:' .. key)
end

-- Calls a command on the lists of failed jobs that this one belongs in: of all, and of its tenant.
local function call_on_dead(id, command, ...)
  local tenant = get(id, 'tenant')[1]
  redis.call(command, P .. ':dead', ...)
  if tenant then redis.call(command, P .. ':dead:' .. tenant, ...) end
end

local function finalize(id, state, ...)
  local rec = get(id, 'ttl_s', 'attempt', 'idem', 'tenant')
  forget_places(id)
  release_followers(id)
  set(id, 'state', state, 'finished_at', stamp(now), ...)
  redis.call('HDEL', job_key(id), 'stage', 'next_at', 'follows')
  local ttl = math.ceil(tonumber(rec[1]))
  redis.call('EXPIRE', job_key(id), ttl)
  redis.call('SET', P .. ':gone:' .. id, state .. ':' .. (rec[4] or ''), 'EX', ttl + GONE_EXTRA_S)
  if rec[3] then redis.call('EXPIRE', P .. ':idem:' .. rec[3], ttl) end
  if state == 'failed' then
    call_on_dead(id, 'ZREMRANGEBYSCORE', '-inf', stamp(now))
    call_on_dead(id, 'ZADD', stamp(now + ttl), id)
    call_on_dead(id, 'EXPIRE', INDEX_S)
  end
  emit(id, 'state', state, rec[2])
  redis.call('EXPIRE', P .. ':events:' .. id, ttl)
  if state == 'succeeded' then
    redis.call('DEL', segments_key(id))
  else
    redis.call('EXPIRE', segments_key(id), ttl)
  end
end

local function cancel_now(id, attempt, stage)
  finalize(id, 'canceled', 'failure',
    failure('canceled', 'canceled on request', stage, false, attempt))
end

local function expire_now(id, attempt)
  finalize(id, 'expired', 'failure', failure('start_by_passed',
    'no worker started the job before start_by', 'queued', false, attempt))
end

-- Takes a running job back to queued; the caller decides when its bell is rung.
local function requeue(id, ...)
  forget_places(id)
  set(id, 'state', 'queued', ...)
  redis.call('HDEL', job_key(id), 'stage', 'worker', 'token')
end

-- Keeps the result of an attempt that could not store it, for the next one; returns since when it waits.
local function keep(id, result)
  redis.call('HSETNX', job_key(id), 'kept_at', stamp(now))
  set(id, 'kept', result)
  return tonumber(get(id, 'kept_at')[1])
end

-- Returns why a producer's write is refused: the record is 'unknown' or 'unreadable'; nil: it is not. To the client
-- of a tenant the records of others are unknown; an operator's, with the tenant '', sees all.
local function refuse(id, tenant)
  if redis.call('EXISTS', job_key(id)) == 0 then return 'unknown' end
  if tenant ~= '' and get(id, 'tenant')[1] ~= tenant then return 'unknown' end
  if not is_sound(id) then return 'unreadable' end
end

-- Tells if a worker's write still counts: 'ok', 'cancel', or 'lost' if it must be refused. The fence is the
-- claim's token, not the attempt's number: a Redis that lost its last second hands out attempt numbers twice.
local function fence(id, token)
  local rec = get(id, 'state', 'token', 'attempt')
  if rec[2] ~= token or not is_sound(id) then return 'lost' end
  if rec[1] == 'running' then return 'ok', rec[3] end
  if rec[1] == 'canceling' then return 'cancel', rec[3] end
  return 'lost'
end
