-- prefix, queue of the bell that was heard or '', worker, lease_s, token, is_idle 0|1,
-- most jobs of a tenant that run at once or '', queues in the order in which they are asked...
-- -> {'run', queues to ring, id, attempt, request, created_at, timeout_s, queued_s, kept, exclusive 0|1, more wait 0|1,
--    traceparent, token of the previous attempt},
-- {'wait', queues to ring, id}, {'unreadable', queues to ring, id} or {'none', queues to ring, why}
local heard, worker, token, is_idle, most = ARGV[2], ARGV[3], ARGV[5], ARGV[6] == '1', tonumber(ARGV[7])
local CLAIMED, CALL_AGAIN_S, RESERVED_S, MOST_PASSED, MOST_EXPIRED = P .. ':claimed:' .. worker, 600, 10, 100, 100

for _, field in ipairs({'request', 'kept', 'traceparent', 'previous'}) do FIELDS[#FIELDS + 1] = field end -- the worker gets them

local function run(rec, more_wait)
  return {'run', rings, rec.id, rec.attempt, rec.request or '', rec.created_at, rec.timeout_s,
    stamp(now() - tonumber(rec.rung_at or rec.created_at)), rec.kept or '',
    is_exclusive(rec, tonumber(rec.attempt)) and '1' or '0', more_wait and '1' or '0',
    rec.traceparent or '', rec.previous or ''}
end

-- A call repeated after a lost reply gets its claim again. A worker makes its claims one at a time.
local last_token, last_id, reserved_in = string.match(call_anew('GET', CLAIMED) or '', '^(%S*) (%S*) (%S*)$')
if last_token == token then
  local rec = read(last_id)
  if rec.state == 'running' and rec.token == token and is_sound(rec) then
    for _, queue in ipairs({rec.queue, heard}) do -- the bells of the first call may have been lost with its reply
      if queue ~= '' and redis.call('EXISTS', turns(queue)) == 1 then add_ring(queue) end
    end
    return run(rec, true)
  end
end

-- The lines of all queues that this call asks for are looked at, and what a claim has to know of them, in one go.
local line_heads, eligible, asked = {}, {}, {'wake', heard}
for n = 8, #ARGV do
  eligible[#eligible + 1] = turns(ARGV[n])
  line_heads[#line_heads + 1], line_heads[#line_heads + 2] = turns(ARGV[n]), held(ARGV[n])
  asked[#asked + 1], asked[#asked + 2] = ARGV[n] .. ':turn', ARGV[n] .. ':paused'
end
local values = redis.call('HMGET', DISPATCH, unpack(asked))
local woken, paused, last_turn = values[1] or '', {}, {}
for n = 8, #ARGV do
  last_turn[ARGV[n]], paused[ARGV[n]] = num(values[2 * n - 13]) or 0, values[2 * n - 12] and true
end

-- Writes that the bell was heard, together with other fields: once, before any bell is counted.
local is_heard = heard == ''
local function note_heard(...)
  local fields = {...}
  if not is_heard then
    is_heard = true
    local count = math.max((num(values[2]) or 0) - 1, 0)
    for _, value in ipairs({heard, count, heard .. ':at', stamp(now())}) do fields[#fields + 1] = value end
  end
  if #fields > 0 then redis.call('HSET', DISPATCH, unpack(fields)) end
end
if woken ~= '' then
  note_heard()
  ring_for_woken(woken)
end
-- A claim that no bell led to finds nothing as a rule: it follows the last job of a burst.
if heard == '' and redis.call('EXISTS', unpack(line_heads)) == 0 then return {'none', rings, 'nothing waits'} end

-- Rings for what is left behind here: another worker may be idle.
local function leave(queue)
  note_heard()
  if queue ~= '' and not paused[queue] then add_ring(count_first_bell(queue)) end
end

-- An exclusive attempt is for an idle worker. A busy one that meets such a job is reserved for it: it
-- claims nothing until it is idle and gets the job, or another worker did, so that a fleet that is always
-- busy comes to it. One worker a queue is reserved, as long as it calls again; the others pass the job by and
-- take what stands behind it.
local function may_be_passed_by(rec)
  return not is_idle and is_exclusive(rec, rec.attempt + 1)
end

local function reserve_for(rec)
  local key = P .. ':reserved:' .. rec.queue
  redis.call('HSET', key, 'worker', worker, 'job', rec.id)
  redis.call('EXPIRE', key, RESERVED_S)
  redis.call('SET', CLAIMED, ' ' .. rec.id .. ' ' .. rec.queue, 'EX', CALL_AGAIN_S)
  leave(rec.queue)
  leave(heard)
  return {'wait', rings, rec.id}
end

-- Returns the record of the job that this worker is reserved for, and how it may begin now: 'run' or 'wait'; nothing
-- if it may not begin any more, or if another worker is reserved by now.
local function take_reserved(queue)
  local key = P .. ':reserved:' .. queue
  local reserved = call_anew('HMGET', key, 'worker', 'job')
  if reserved[1] ~= worker then return nil end
  local rec = reserved[2] and read(reserved[2])
  local stands = rec and is_well_placed(rec, queue, rec.tenant) and redis.call('ZSCORE', line(queue, rec.tenant), rec.id)
  local may_begin = stands and room(rec.tenant, most) > 0
  if may_begin and may_be_passed_by(rec) then return rec, 'wait' end
  redis.call('DEL', key)
  if may_begin then return rec, 'run' end
end

-- Returns the record of the job of this queue that is to begin, and how: 'run', 'wait', 'unreadable' or 'expired';
-- and its tenant's turn, and true if no other job of the tenant waits there, as far as they were looked up.
local function choose(queue, takes_held)
  if reserved_in == queue then
    local rec, how = take_reserved(queue)
    if how then return rec, how end
  end
  local reserves, has_asked, is_reserved, passed, count = false, false, false, {}, 0
  local function is_passed_by(rec)
    if reserves or not may_be_passed_by(rec) then return false end
    if not has_asked then
      has_asked, is_reserved = true, call_anew('HEXISTS', P .. ':reserved:' .. queue, 'worker') == 1
    end
    -- A claim passes by no more than these: where so many wait, more workers are reserved.
    reserves = not is_reserved or count >= MOST_PASSED
    if not reserves and not passed[rec.id] then passed[rec.id], count = true, count + 1 end
    return not reserves
  end
  for _ = 1, MOST_EXPIRED do
    local rec, tenant, turn, is_last = next_in_line(queue, most, is_passed_by, takes_held)
    if not rec then return nil end
    if reserves then return rec, 'wait' end
    if not is_well_placed(rec, queue, tenant) then
      leave_line(rec.id, queue, tenant)
      return rec, 'unreadable'
    end
    if rec.attempt ~= '0' or not rec.start_by or now() <= tonumber(rec.start_by) then
      return rec, 'run', turn, is_last
    end
    expire_now(rec)
  end
  return nil, 'expired' -- a day's backlog does not block Redis: the next claim goes on
end

local rec, how, turn, is_last, queue
local why = 'nothing waits'
local function look(takes_held)
  for n = 8, #ARGV do
    queue = ARGV[n]
    if paused[queue] then
      why = 'its queue is paused'
    else
      rec, how, turn, is_last = choose(queue, takes_held)
      if how == 'expired' then why = 'start_by has passed' end
      if how then return end
      if most and call_anew('EXISTS', held(queue)) == 1 then
        why = 'the tenants that wait run as many jobs as they may'
      end
    end
  end
end
look(false)
if not how and not most then look(true) end
if how == 'wait' then return reserve_for(rec) end
if how ~= 'run' then
  note_heard()
  if how then leave(queue) end -- else nothing is left that this worker could begin
  if rec then return {'unreadable', rings, rec.id} end
  return {'none', rings, why}
end

-- A tenant whose job was passed by has an old turn; it gets one job for it, not one for each turn missed.
local tenant = rec.tenant
turn = math.max(last_turn[queue], turn or num(redis.call('ZSCORE', turns(queue), tenant)) or 0)
note_heard(queue .. ':turn', turn)
leave_line(rec.id, queue, tenant, turn + 1, is_last)
if rec.next_at then leave_delayed(rec) end
if rec.start_by then redis.call('ZREM', P .. ':startby', rec.id) end
if rec.overdue or rec.draining then redis.call('HDEL', job_key(rec.id), 'overdue', 'draining') end
-- The attempt is counted before any work is done: a video that kills the process cannot loop.
rec.attempt = tostring(tonumber(rec.attempt) + 1)
rec.previous = rec.token or rec.previous
set(rec.id, 'state', 'running', 'stage', 'fetching', 'attempt', rec.attempt, 'worker', worker,
  'token', token, 'started_at', stamp(now()), 'deadline', stamp(now() + tonumber(rec.timeout_s)),
  'shared', most and '1' or '0', 'stages', 'fetching@' .. stamp(now()))
redis.call('ZADD', LEASES, stamp(now() + tonumber(ARGV[4])), rec.id)
call_anew('ZADD', running(queue), rec.created_at, rec.id)
if most then call_anew('ZADD', share(tenant), 0, rec.id) end
redis.call('SET', CLAIMED, token .. ' ' .. rec.id .. ' ', 'EX', CALL_AGAIN_S)
emit(rec.id, 'state', 'running', rec.attempt, 'stage', 'fetching')
local more_wait = redis.call('EXISTS', unpack(eligible)) > 0
if more_wait then leave(queue) end
if heard ~= queue then leave(heard) end
return run(rec, more_wait)
