-- Functions that all transitions share. ARGV[1] is the prefix; the clock is Redis' own.
local P = ARGV[1]
local STREAM_LENGTH = 1000
local GONE_EXTRA_S = 7 * 86400
local WORKER_TTL_S = 60 -- a worker that said nothing for so long is gone

local clock
local function now()
  if not clock then
    local found = redis.call('TIME')
    clock = tonumber(found[1]) + tonumber(found[2]) / 1e6
  end
  return clock
end
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

local FIELDS = {'state', 'queue', 'attempt', 'max_attempts', 'ttl_s', 'timeout_s', 'created_at', 'place', 'rung_at',
  'kept_at', 'start_by', 'deadline', 'tenant', 'token', 'stage', 'worker', 'next_at', 'follows', 'suspect', 'overdue',
  'draining', 'flight', 'idem', 'filters', 'segments', 'shared'}

-- Returns a record with the fields that transitions work with; one without `state` is no record. An empty field is
-- as none: it costs no further command to write one.
local function read(id)
  local values = get(id, unpack(FIELDS))
  local rec = {id = id}
  for n, field in ipairs(FIELDS) do rec[field] = values[n] and values[n] ~= '' and values[n] or nil end
  rec.tenant = rec.tenant or ''
  return rec
end

-- Tells if a record has what the transitions compute with. They leave one alone that has not: a newer release
-- or another program wrote it, and an error in a script would stop a queue, a reaper or all leases of a worker.
local function is_sound(rec)
  if not rec.state or not rec.queue then return false end
  for _, field in ipairs({'attempt', 'max_attempts'}) do
    if not num(rec[field]) or not string.find(rec[field], '^%d+$') then return false end
  end
  for _, field in ipairs({'ttl_s', 'timeout_s', 'created_at'}) do
    if not num(rec[field]) then return false end
  end
  for _, field in ipairs({'place', 'rung_at', 'kept_at', 'start_by', 'deadline'}) do
    if rec[field] and not num(rec[field]) then return false end
  end
  return true
end

-- Writes an event; its time is in its id.
local function emit(id, kind, state, attempt, ...)
  call_anew('XADD', P .. ':events:' .. id, 'MAXLEN', '~', STREAM_LENGTH, '*',
    'type', kind, 'state', state, 'attempt', attempt, ...)
end

local function failure(code, message, stage, retryable, attempt)
  local body = {code = code, message = message, retryable = retryable, attempt = tonumber(attempt)}
  if stage then body.stage = stage end
  return cjson.encode(body)
end

-- Lists have ids by the time of their submission. `P:list:STATE:TENANT:` has the jobs of a tenant, '' for all, in a
-- final state, or those that are `open`: not final. `P:list:any:TENANT:FILTER` has those with a tag or of a model, in
-- any state: a filter is walked together with the records, or a state is if it has fewer jobs. A job that joins a list
-- looks, in one of 16 cases, for ids whose records are gone: at the oldest, and at some others, since not all records
-- live equally long.
local LISTED_S = 100 * 86400 -- longer than any record lives after its job
local TRIMMED = 16

local function make_list_keys(rec, state, filter)
  local keys = {P .. ':list:' .. state .. '::' .. filter}
  if rec.tenant ~= '' then
    local tenant = string.gsub(rec.tenant, '[%%:]', {['%'] = '%25', [':'] = '%3A'})
    keys[2] = P .. ':list:' .. state .. ':' .. tenant .. ':' .. filter
  end
  return keys
end

-- Returns the keys of the lists by the job's tags and model.
local function make_filter_keys(rec)
  local is_json, filters = pcall(cjson.decode, rec.filters or '[]')
  if not is_json or type(filters) ~= 'table' then return {} end
  local keys = {}
  for _, filter in ipairs(filters) do
    if type(filter) == 'string' then
      for _, key in ipairs(make_list_keys(rec, 'any', filter)) do keys[#keys + 1] = key end
    end
  end
  return keys
end

local function trim(key)
  local ids, keys, gone = redis.call('ZRANGE', key, 0, TRIMMED - 1), {}, {}
  for _, id in ipairs(redis.call('ZRANDMEMBER', key, TRIMMED)) do ids[#ids + 1] = id end
  for n, id in ipairs(ids) do keys[n] = job_key(id) end
  if redis.call('EXISTS', unpack(keys)) == #keys then return end
  for n, id in ipairs(ids) do
    if redis.call('EXISTS', keys[n]) == 0 then gone[#gone + 1] = id end
  end
  redis.call('ZREM', key, unpack(gone))
end

local function list_under(rec, key, lives)
  call_anew('ZADD', key, rec.created_at, rec.id)
  if lives then redis.call('EXPIRE', key, LISTED_S) end
  if string.sub(rec.id, -1) == '0' then trim(key) end
end

local function unlist(rec, state)
  for _, key in ipairs(make_list_keys(rec, state, '')) do call_anew('ZREM', key, rec.id) end
end

-- Lists the job in a state. The lists of all tenants live for good, others come and go.
local function list_in(rec, state)
  for n, key in ipairs(make_list_keys(rec, state, '')) do list_under(rec, key, state ~= 'open' and n > 1) end
end

-- Has the lists of the job's filters live as long as its record.
local function prolong_lists(rec)
  for _, key in ipairs(make_filter_keys(rec)) do redis.call('EXPIRE', key, LISTED_S) end
end

-- A queue's jobs stand in `waiting` by their place, which is the time when they first stood in line. Tenants take
-- turns: each has a line of its own, and `turns` orders them by the number of jobs begun. A tenant that comes to
-- stand in line again joins at the end of this round. One that has as many jobs running as it may is `held` until
-- one of them ends.
local function waiting(queue) return P .. ':waiting:' .. queue end
local function line(queue, tenant) return P .. ':line:' .. queue .. ':' .. tenant end
local function turns(queue) return P .. ':turns:' .. queue end
local function held(queue) return P .. ':held:' .. queue end
local function holding(tenant) return P .. ':holding:' .. tenant end

-- A claim reads all of this of each queue: QUEUE has the number of bells on their way, QUEUE:at the time of the last
-- one, QUEUE:turn the last turn, QUEUE:paused is there if no job begins. `wake` has queues in which jobs came to
-- wait by a call that cannot ring.
local DISPATCH, QUEUES = P .. ':dispatch', P .. ':queues'
local function is_paused(queue) return redis.call('HEXISTS', DISPATCH, queue .. ':paused') == 1 end
local has_woken = false
local function wake(queue)
  has_woken = true
  local woken = redis.call('HGET', DISPATCH, 'wake') or ''
  if string.find(woken .. ' ', ' ' .. queue .. ' ', 1, true) then return end
  redis.call('HSET', DISPATCH, 'wake', woken .. ' ' .. queue)
end

-- Running jobs: of all by the end of their leases, of a queue, and of a tenant where a limit is set.
local LEASES = P .. ':leases'
local function running(queue) return P .. ':running:' .. queue end
local function share(tenant) return P .. ':share:' .. tenant end
local function delayed(queue) return P .. ':delayed:' .. queue end

-- The workers of a queue by their last word, and those of them that are ready, each as 'slots limit id'.
local function serving(queue) return P .. ':serving:' .. queue end
local function ready(queue) return P .. ':ready:' .. queue end

-- Tells if a job that stands in this line can be begun, or passed by: its record is sound, and of this line.
local function is_well_placed(rec, queue, tenant)
  return rec.queue == queue and rec.tenant == tenant and is_sound(rec)
end

-- Counts one more bell for a queue and returns its name if one is to be rung; a few bells wake as many workers as
-- many do, and a worker that is awake claims until nothing waits.
local MOST_BELLS = 64
local function count_bell(queue, before)
  local count = num(before or redis.call('HGET', DISPATCH, queue)) or 0
  if count >= MOST_BELLS then return nil end
  redis.call('HSET', DISPATCH, queue, count + 1, queue .. ':at', stamp(now()))
  return queue
end

-- Puts a job into its line; returns the number of bells that are on their way to its queue, a text.
local function stand_in_line(id, queue, tenant, place)
  local bells, key = redis.call('HMGET', DISPATCH, queue, queue .. ':turn'), line(queue, tenant)
  if redis.call('ZADD', turns(queue), 'NX', (num(bells[2]) or 0) + 1, tenant) == 1 then
    redis.call('ZADD', QUEUES, 'NX', stamp(now()), queue)
  end
  redis.call('ZADD', key, place, id)
  redis.call('ZADD', waiting(queue), place, id)
  return bells[1] or '0'
end

-- Takes a job out of its line. A tenant whose job begins gets its next turn, unless the job was its `is_last` one;
-- nil: that is not known.
local function leave_line(id, queue, tenant, next_turn, is_last)
  redis.call('ZREM', waiting(queue), id)
  local was_there = redis.call('ZREM', line(queue, tenant), id) == 1
  if not was_there and not next_turn then return end
  if is_last == nil then is_last = redis.call('EXISTS', line(queue, tenant)) == 0 end
  if not is_last then
    if next_turn then redis.call('ZADD', turns(queue), next_turn, tenant) end
  elseif was_there then
    if redis.call('ZREM', turns(queue), tenant) == 0 then call_anew('ZREM', held(queue), tenant) end
  end
end

-- Returns how many more jobs of the tenant may begin; `most` of them may run at once, nil: any number.
local function room(tenant, most)
  if not most then return math.huge end
  local count = call_anew('ZCARD', share(tenant))
  -- Only a record that somebody deleted leaves an id behind.
  if count >= most then count = redis.call('ZINTERSTORE', share(tenant), 2, share(tenant), LEASES) end
  return math.max(most - count, 0)
end

local function move_tenant(from, to, tenant)
  local turn = call_anew('ZSCORE', from, tenant)
  if not turn then return end
  call_anew('ZREM', from, tenant)
  call_anew('ZADD', to, turn, tenant)
end

local function hold(queue, tenant)
  move_tenant(turns(queue), held(queue), tenant)
  call_anew('SADD', holding(tenant), queue)
end

-- Puts a tenant back that was held, since one of its jobs has ended. The next claim rings for its queues: they may
-- be none of the queues that the worker serves.
local function free_room(tenant)
  for _, queue in ipairs(call_anew('SMEMBERS', holding(tenant))) do
    move_tenant(held(queue), turns(queue), tenant)
    wake(queue)
  end
  redis.call('DEL', holding(tenant))
end

-- Returns the record of the job whose turn it is, or nothing; jobs that `is_passed_by` accepts, and those of tenants
-- that have `most` jobs running, keep their places. One without a record, which somebody deleted or Redis evicted,
-- leaves its line. One that is not well placed is returned, and the caller takes it out. Besides, returns the tenant,
-- its turn, and true if no other of its jobs waits here. `takes_held`: of a tenant that others held, if there is no
-- other job.
local function next_in_line(queue, most, is_passed_by, takes_held)
  local round = 0
  while true do
    local found = redis.call('ZRANGE', turns(queue), round, round, 'WITHSCORES')
    local tenant = found[1]
    if not tenant then
      tenant = takes_held and call_anew('ZRANGE', held(queue), 0, 0)[1]
      if not tenant then return nil end
      move_tenant(held(queue), turns(queue), tenant)
      round = 0
    elseif room(tenant, most) == 0 then
      hold(queue, tenant)
    else
      local key, place = line(queue, tenant), 0
      while true do
        local ids = redis.call('ZRANGE', key, place, place + 1)
        local id = ids[1]
        if not id then break end
        local rec = read(id)
        if not rec.state and redis.call('EXISTS', job_key(id)) == 0 then
          redis.call('ZREM', key, id)
          redis.call('ZREM', waiting(queue), id)
        elseif is_well_placed(rec, queue, tenant) and is_passed_by(rec) then
          place = place + 1
        else
          return rec, tenant, num(found[2]) or 0, place == 0 and not ids[2]
        end
      end
      if place > 0 then round = round + 1 else redis.call('ZREM', turns(queue), tenant) end
    end
  end
end

-- The queues for which the caller is to ring, each once.
local rings, rung = {}, {}
local function add_ring(queue)
  if queue and not rung[queue] then rung[queue], rings[#rings + 1] = true, queue end
end

-- Rings for the queues that `wake` noted.
local function ring_for_woken(woken)
  redis.call('HDEL', DISPATCH, 'wake')
  for queue in string.gmatch(woken, '%S+') do add_ring(count_bell(queue)) end
end

-- Counts a bell for a queue that has jobs which may begin, if none is on its way.
local function count_first_bell(queue)
  if redis.call('EXISTS', turns(queue)) == 0 then return nil end
  local before = redis.call('HGET', DISPATCH, queue) or '0'
  if (num(before) or 0) > 0 then return nil end
  return count_bell(queue, before)
end

-- Tells if a bell that was rung at this time, as text, is this old; one of the future is of a clock that was set back.
local function is_old(at, age_s)
  at = num(at) or 0
  return now() < at or now() - at >= age_s
end

local function is_begun(rec) return rec.state == 'running' or rec.state == 'canceling' end

local function leave_delayed(rec)
  redis.call('ZREM', P .. ':delayed', rec.id)
  if rec.next_at then call_anew('ZREM', delayed(rec.queue), rec.id) end
end

local function forget_places(rec)
  if is_begun(rec) then
    redis.call('ZREM', LEASES, rec.id)
    call_anew('ZREM', running(rec.queue), rec.id)
    if rec.shared == '1' and call_anew('ZREM', share(rec.tenant), rec.id) == 1 then free_room(rec.tenant) end
    return
  end
  leave_line(rec.id, rec.queue, rec.tenant)
  leave_delayed(rec)
  if rec.start_by then redis.call('ZREM', P .. ':startby', rec.id) end
end

-- Tells if the job's attempt of this number is to run with nothing beside it. One at most of the jobs of a process
-- that died is guilty, so the last attempt of a job that lost its workers is exclusive; unless its answers are kept
-- and only to be stored.
local function is_exclusive(rec, attempt)
  if not rec.suspect or attempt < tonumber(rec.max_attempts) then return false end
  return redis.call('HEXISTS', job_key(rec.id), 'kept') == 0
end

-- Puts the job into its line; returns the name of its queue if a bell is to be rung. The job has the place of its
-- first time: a backlog that came later does not begin before its next attempt.
local function enqueue(rec)
  if not rec.place then set(rec.id, 'place', stamp(now())) end
  set(rec.id, 'rung_at', stamp(now()))
  leave_delayed(rec)
  if rec.next_at then redis.call('HDEL', job_key(rec.id), 'next_at') end
  return count_bell(rec.queue, stand_in_line(rec.id, rec.queue, rec.tenant, rec.place or stamp(now())))
end

-- Makes the job due later; it is queued, but stands in no line until then.
local function delay(rec, at)
  set(rec.id, 'next_at', stamp(at))
  redis.call('ZADD', P .. ':delayed', stamp(at), rec.id)
  call_anew('ZADD', delayed(rec.queue), stamp(at), rec.id)
  redis.call('ZADD', QUEUES, 'NX', stamp(now()), rec.queue)
end

-- One of several equal jobs asks the model, the leader of their flight. Those that are claimed meanwhile follow it,
-- and stand in no line. At its end MOST_RELEASED of them stand in line again, interactive ones first, and the first
-- of these is the leader of the rest: its own end releases the next ones. So no call takes long, however many follow.
local MOST_RELEASED, BULK_LATER = 50, 1e11
local FLIGHTS = P .. ':flights' -- flights with followers, by a reaper's last look
local function flight(key) return P .. ':flight:' .. key end
local function followers(key) return P .. ':followers:' .. key end
local function is_bulk(rec) return string.sub(rec.queue, -5) == '.bulk' end

local function follow(rec, key)
  local place = num(rec.place) or now()
  call_anew('ZADD', followers(key), stamp(is_bulk(rec) and place + BULK_LATER or place), rec.id)
  call_anew('ZADD', FLIGHTS, 'NX', stamp(now()), key)
end

-- Returns the record of the flight's leader, if it is another job than this one.
local function find_other_leader(key, id)
  local leader = call_anew('GET', flight(key))
  if not leader or leader == id then return nil end
  local rec = read(leader)
  if rec.flight == key and is_sound(rec) then return rec end
end

local function make_leader(id, key)
  redis.call('SET', flight(key), id)
  set(id, 'flight', key)
end

-- Puts the follower that is first into its line, and returns its id; nil if there is none.
local function release_first(key)
  while true do
    local id = call_anew('ZPOPMIN', followers(key))[1]
    if not id then return nil end
    local rec = read(id)
    if rec.state == 'queued' and rec.follows == key and is_sound(rec) then
      redis.call('HDEL', job_key(id), 'follows')
      set(id, 'rung_at', stamp(now()))
      stand_in_line(id, rec.queue, rec.tenant, rec.place or stamp(now()))
      wake(rec.queue)
      return id
    end
  end
end

-- Ends a flight whose leader has ended, or is gone.
local function end_flight(key)
  redis.call('DEL', flight(key))
  local first = release_first(key)
  if not first then return end
  for _ = 2, MOST_RELEASED do
    if not release_first(key) then return end
  end
  if redis.call('EXISTS', followers(key)) == 1 then make_leader(first, key) end
end

-- Hands the flight of a bulk job that is queued again to an interactive follower, which would else wait as long.
local function hand_over(rec)
  if not rec.flight or not is_bulk(rec) or find_other_leader(rec.flight, rec.id) then return end
  local first = call_anew('ZRANGE', followers(rec.flight), 0, 0, 'WITHSCORES')[2]
  if not first or tonumber(first) >= BULK_LATER then return end
  local heir = release_first(rec.flight)
  if not heir then return end
  redis.call('HDEL', job_key(rec.id), 'flight')
  make_leader(heir, rec.flight)
  rec.flight = nil
end

local function finalize(rec, state, ...)
  local id = rec.id
  forget_places(rec)
  if rec.flight then end_flight(rec.flight) end
  if rec.follows then call_anew('ZREM', followers(rec.follows), id) end
  if state == 'succeeded' and (rec.attempt ~= '1' or rec.segments) then
    redis.call('HDEL', job_key(id), 'failure', 'kept', 'kept_at', 'segments')
  end
  local fields = {'state', state, 'finished_at', stamp(now()), ...}
  for _, field in ipairs({'stage', 'flight', 'next_at', 'follows'}) do
    if rec[field] then fields[#fields + 1], fields[#fields + 2] = field, '' end
  end
  set(id, unpack(fields))
  local ttl = math.ceil(tonumber(rec.ttl_s))
  redis.call('EXPIRE', job_key(id), ttl)
  redis.call('SET', P .. ':gone:' .. id, state .. ':' .. rec.tenant, 'EX', ttl + GONE_EXTRA_S)
  if rec.idem then redis.call('EXPIRE', P .. ':idem:' .. rec.idem, ttl) end
  unlist(rec, 'open')
  list_in(rec, state)
  prolong_lists(rec)
  emit(id, 'state', state, rec.attempt)
  redis.call('EXPIRE', P .. ':events:' .. id, ttl)
  if not rec.segments then return end
  if state == 'succeeded' then
    redis.call('DEL', segments_key(id))
  else
    redis.call('EXPIRE', segments_key(id), ttl)
  end
end

local function cancel_now(rec, stage)
  finalize(rec, 'canceled', 'failure',
    failure('canceled', 'canceled on request', stage, false, rec.attempt))
end

local function expire_now(rec)
  finalize(rec, 'expired', 'failure', failure('start_by_passed',
    'no worker started the job before start_by', 'queued', false, rec.attempt))
end

-- Takes a running job back to queued; the caller decides when it stands in line.
local function requeue(rec, ...)
  forget_places(rec)
  set(rec.id, 'state', 'queued', ...)
  redis.call('HDEL', job_key(rec.id), 'stage', 'worker', 'token')
  hand_over(rec)
end

-- Keeps the result of an attempt that could not store it, for the next one; returns since when it waits.
local function keep(rec, result)
  set(rec.id, 'kept', result, 'kept_at', rec.kept_at or stamp(now()))
  return tonumber(rec.kept_at) or now()
end

-- Returns why a producer's write is refused: the record is 'unknown' or 'unreadable'; nil: it is not. To the client
-- of a tenant the records of others are unknown; an operator's, with the tenant '', sees all.
local function refuse(rec, tenant)
  if not rec.state and redis.call('EXISTS', job_key(rec.id)) == 0 then return 'unknown' end
  if tenant ~= '' and rec.tenant ~= tenant then return 'unknown' end
  if not is_sound(rec) then return 'unreadable' end
end

-- Tells if a worker's write still counts: 'ok', 'cancel', or 'lost' if it must be refused. The fence is the
-- claim's token, not the attempt's number: a Redis that lost its last second hands out attempt numbers twice.
local function fence(rec, token)
  if rec.token ~= token or not is_sound(rec) then return 'lost' end
  if rec.state == 'running' then return 'ok' end
  if rec.state == 'canceling' then return 'cancel' end
  return 'lost'
end
