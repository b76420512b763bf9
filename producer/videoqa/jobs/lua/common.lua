-- Functions of lists, lines, flights and counters, and the ends of jobs, for transitions; behind records.lua.
-- Lists have ids by the time of their submission. `P:list:STATE:TENANT:` has the jobs of a tenant, '' for all, in a
-- final state, or those that are `open`: not final. `P:list:any:TENANT:FILTER` has those with a tag or of a model, in
-- any state: a filter is walked together with the records, or a state is if it has fewer jobs. Dead letters stand
-- besides in `P:list:dead:TENANT:` and `P:list:dead:TENANT:CODE`, by the time of their failure. A job that joins a list
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

-- Returns the job's tags and model, as `tag=TAG` and `model=MODEL`.
local function parse_filters(rec)
  local is_json, filters = pcall(cjson.decode, rec.filters or '[]')
  local found = {}
  for _, filter in ipairs(is_json and type(filters) == 'table' and filters or {}) do
    if type(filter) == 'string' then found[#found + 1] = filter end
  end
  return found
end

-- Returns the keys of the lists by the job's tags and model.
local function make_filter_keys(rec)
  local keys = {}
  for _, filter in ipairs(parse_filters(rec)) do
    for _, key in ipairs(make_list_keys(rec, 'any', filter)) do keys[#keys + 1] = key end
  end
  return keys
end

local function trim(key)
  local ids, keys, gone = redis.call('ZRANGE', key, 0, TRIMMED - 1), {}, {}
  if #ids == 0 then return end
  for _, id in ipairs(redis.call('ZRANDMEMBER', key, TRIMMED)) do ids[#ids + 1] = id end
  for n, id in ipairs(ids) do keys[n] = job_key(id) end
  if redis.call('EXISTS', unpack(keys)) == #keys then return end
  for n, id in ipairs(ids) do
    if redis.call('EXISTS', keys[n]) == 0 then gone[#gone + 1] = id end
  end
  redis.call('ZREM', key, unpack(gone))
end

local function list_under(rec, key, lives, at)
  call_anew('ZADD', key, at or rec.created_at, rec.id)
  if lives then redis.call('EXPIRE', key, LISTED_S) end
  if string.sub(rec.id, -1) == '0' then trim(key) end
end

local function unlist(rec, state)
  for _, key in ipairs(make_list_keys(rec, state, '')) do call_anew('ZREM', key, rec.id) end
  if state ~= 'failed' then return end
  for _, code in ipairs({'', rec.code}) do
    for _, key in ipairs(make_list_keys(rec, 'dead', code)) do call_anew('ZREM', key, rec.id) end
  end
end

-- Lists the job in a state. The lists of all tenants live for good, others come and go.
local function list_in(rec, state)
  for n, key in ipairs(make_list_keys(rec, state, '')) do list_under(rec, key, state ~= 'open' and n > 1) end
end

-- Lists a job that failed for good, by its code and the time.
local function list_dead(rec)
  for _, code in ipairs({'', rec.code}) do
    for n, key in ipairs(make_list_keys(rec, 'dead', code)) do list_under(rec, key, n > 1, stamp(now())) end
  end
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
local FOLLOWED = ' +' -- stands behind the leader's id in the flight's key once a job follows it
local function flight(key) return P .. ':flight:' .. key end
local function followers(key) return P .. ':followers:' .. key end
local function is_bulk(rec) return string.sub(rec.queue, -5) == '.bulk' end

local function follow(rec, key)
  local place = num(rec.place) or now()
  call_anew('ZADD', followers(key), stamp(is_bulk(rec) and place + BULK_LATER or place), rec.id)
  call_anew('ZADD', FLIGHTS, 'NX', stamp(now()), key)
end

-- Returns the record of the flight's leader, if it is another job than this one. `named` is the value of the flight's
-- key, if the caller has read it.
local function find_other_leader(key, id, named)
  local leader = string.match(named or call_anew('GET', flight(key)) or '', '^%S+')
  if not leader or leader == id then return nil end
  local rec = read(leader)
  if rec.flight == key and is_sound(rec) then return rec end
end

local function make_leader(id, key, is_followed)
  redis.call('SET', flight(key), is_followed and id .. FOLLOWED or id)
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

-- Ends a flight whose leader has ended, or is gone. Followers are not looked for where the key says that there are none,
-- as for most jobs, unless `looks` asks for it.
local function end_flight(key, looks)
  local named = call_anew('GETDEL', flight(key))
  if named and not looks and not string.find(named, FOLLOWED, 1, true) then return end
  local first = release_first(key)
  if not first then return end
  for _ = 2, MOST_RELEASED do
    if not release_first(key) then return end
  end
  if redis.call('EXISTS', followers(key)) == 1 then make_leader(first, key, true) end
end

-- Hands the flight of a bulk job that is queued again to an interactive follower, which would else wait as long.
local function hand_over(rec)
  if not rec.flight or not is_bulk(rec) or find_other_leader(rec.flight, rec.id) then return end
  local first = call_anew('ZRANGE', followers(rec.flight), 0, 0, 'WITHSCORES')[2]
  if not first or tonumber(first) >= BULK_LATER then return end
  local heir = release_first(rec.flight)
  if not heir then return end
  redis.call('HDEL', job_key(rec.id), 'flight')
  make_leader(heir, rec.flight, true)
  rec.flight = nil
end

-- Counters of use: a hash for each tenant and UTC day, in which each field has all numbers of a row, in the order of
-- usage.py, so that a job costs one read and one write. The row `all` is of all jobs; others are of a tag, a model, and
-- an API key. Callers name tags and models, so there are MOST_NAMES of each; more are counted in the rows `tag` and
-- `model`. Each end of a job is counted, thus also the second one of a job that was retried.
local USAGE_S, MOST_NAMES = 400 * 86400, 100
local ENDS = {succeeded = 1, failed = 2, canceled = 3, expired = 4}

local function add_numbers(text, added)
  local sums, n = {}, 0
  for word in string.gmatch(text or '', '%S+') do
    n = n + 1
    sums[n] = string.find(word, '^[%d.e+]+$') and tonumber(word) or 0
  end
  for place = 1, #added do sums[place] = string.format('%.15g', (sums[place] or 0) + added[place]) end
  return table.concat(sums, ' ')
end

-- Counts the end of a job, which used the numbers in the text `rec.used`.
local function count_use(rec, state)
  local added = {0, 0, 0, 0}
  added[ENDS[state]] = 1
  for word in string.gmatch(rec.used or '', '%S+') do added[#added + 1] = tonumber(word) or 0 end
  local names = parse_filters(rec)
  if rec.key then names[#names + 1] = 'key=' .. rec.key end
  local day = string.format('%d', math.floor(now() / 86400))
  local key = P .. ':usage:' .. day .. ':' .. rec.tenant
  local found = call_anew('HMGET', key, 'all', 'tags', 'models', 'tag', 'model', unpack(names))
  local known = {tag = tonumber(found[2] or 0) or MOST_NAMES, model = tonumber(found[3] or 0) or MOST_NAMES}
  local rows, is_new = {all = found[1] or ''}, {}
  for n, name in ipairs(names) do
    local kind, row = string.match(name, '^%a+'), found[5 + n]
    if row or not known[kind] then
      rows[name] = row or ''
    elseif known[kind] < MOST_NAMES then
      known[kind], is_new[kind], rows[name] = known[kind] + 1, true, ''
    else
      rows[kind] = found[kind == 'tag' and 4 or 5] or ''
    end
  end
  local fields = {}
  for name, row in pairs(rows) do fields[#fields + 1], fields[#fields + 2] = name, add_numbers(row, added) end
  for kind in pairs(is_new) do fields[#fields + 1], fields[#fields + 2] = kind .. 's', known[kind] end
  redis.call('HSET', key, unpack(fields))
  if found[1] then return end
  redis.call('EXPIRE', key, USAGE_S)
  call_anew('SADD', P .. ':tenants:' .. day, rec.tenant)
  redis.call('EXPIRE', P .. ':tenants:' .. day, USAGE_S)
end

-- Counters of what became of the jobs of a model, or of those that name none, a minute and then a quarter of an hour: a
-- ring of each, in one hash for each model. A field is of jobs that were submitted, 's', or ended, 'e', in a minute of
-- the last two hours, 'm', or a quarter of the last 26, 'q', and has the number of that minute, or quarter, and sums as JSON.
-- The first count of a minute adds what its place in the ring held to its quarter. So a count is one read and one write.
-- Callers name models: beyond MOST_MODELS one that no worker serves is counted in '*', and a failure in a row that has
-- MOST_CODES as 'other'.
local STATS, STATS_S, MINUTES, QUARTERS, QUARTER = P .. ':stats', 26 * 3600, 120, 104, 15
local MOST_MODELS, MOST_CODES = 50, 40

-- Returns sums by name; of what another program wrote there are none.
local function parse_sums(text)
  local is_json, sums = pcall(cjson.decode, text)
  if not is_json or type(sums) ~= 'table' then return {} end
  for name, n in pairs(sums) do
    if type(n) ~= 'number' or type(name) ~= 'string' or not (n >= 0 and n < 1e15) then sums[name] = nil end
  end
  return sums
end

local function has_most_codes(sums)
  local codes = 0
  for name in pairs(sums) do
    if string.find(name, ':', 1, true) then codes = codes + 1 end
  end
  return codes >= MOST_CODES
end

local function add_sums(text, added)
  local sums = parse_sums(text)
  for name, n in pairs(added) do
    local kind = not sums[name] and string.match(name, '^%l+:')
    if kind and has_most_codes(sums) then name = kind .. 'other' end
    sums[name] = (sums[name] or 0) + n
  end
  return cjson.encode(sums)
end

local function read_counted(key, field)
  local at, sums = string.match(call_anew('HGET', key, field) or '', '^(%d+) (.*)$')
  return num(at), sums or ''
end

local function add_to_quarter(key, kind, at, sums, minute)
  if not at or at > minute or minute - at >= STATS_S / 60 then return end
  local quarter = math.floor(at / QUARTER)
  local field = kind .. 'q' .. quarter % QUARTERS
  local had_at, had = read_counted(key, field)
  if had_at and had_at > quarter and had_at <= minute / QUARTER then return end
  redis.call('HSET', key, field, quarter .. ' ' .. add_sums(had_at == quarter and had or '', parse_sums(sums)))
end

-- Tells if the model may have a row of its own.
local function is_counted_alone(model, queue, minute)
  if call_anew('ZSCORE', STATS, model) then return true end
  redis.call('ZREMRANGEBYSCORE', STATS, '-inf', minute - STATS_S / 60)
  return redis.call('ZCARD', STATS) < MOST_MODELS or call_anew('EXISTS', serving(queue)) == 1
end

-- Counts what happened to a job of this queue; `kind` as in the field.
local function count_stats(queue, kind, added)
  local minute = math.floor(now() / 60)
  local model = string.match(string.sub(queue, #P + 2), '^(.+)%.%l+$') or '*'
  local key, field = STATS .. ':' .. model, kind .. 'm' .. minute % MINUTES
  local at, sums = read_counted(key, field)
  if at ~= minute then
    if model ~= '*' and not is_counted_alone(model, queue, minute) then
      model, key = '*', STATS .. ':*'
      at, sums = read_counted(key, field)
    end
    if at ~= minute then
      add_to_quarter(key, kind, at, sums, minute)
      sums = ''
      call_anew('ZADD', STATS, minute, model)
      redis.call('EXPIRE', STATS, STATS_S)
    end
  end
  redis.call('HSET', key, field, minute .. ' ' .. add_sums(sums, added))
  if sums == '' then redis.call('EXPIRE', key, STATS_S) end
end

local function find_code(failed) return failed and string.match(failed, '"code": ?"([%l%d_]+)"') or 'unknown' end

-- Counts the end of a job; `rec.measured` has the sums of its worker, as text.
local function count_end(rec, state, failed)
  local added = parse_sums(rec.measured or '{}')
  added[state] = 1
  if state == 'failed' then added['failed:' .. (rec.code or string.sub(find_code(failed), 1, 60))] = 1 end
  count_stats(rec.queue, 'e', added)
end

-- Counts an attempt that failed, of a job that is tried again.
local function count_retry(rec, failed)
  count_stats(rec.queue, 'e', {retried = 1, ['retried:' .. string.sub(find_code(failed), 1, 60)] = 1})
end

-- An API key may have limits: 'jobs open_jobs frames tokens', '-' where there is none, or '' for no limit at all. Jobs
-- are counted when they are recorded, frames and tokens at the end of a job, both by UTC day; open jobs are those of
-- the tenant. Returns the name of the limit that is reached, if one is, and the use as four numbers.
local QUOTA, FRAMES_AT, TOKENS_AT = {'jobs', 'open_jobs', 'frames', 'tokens'}, 6, 7
local function submitted_key() return P .. ':submitted:' .. string.format('%d', math.floor(now() / 86400)) end
local function check_quota(key, tenant, limits)
  if limits == '' then return nil, '' end
  local most, used = {}, {0, 0, 0, 0}
  for word in string.gmatch(limits, '%S+') do most[#most + 1] = tonumber(word) or false end
  if most[1] then used[1] = num(call_anew('HGET', submitted_key(), key)) or 0 end
  if most[2] then
    local lists = make_list_keys({tenant = tenant}, 'open', '')
    used[2] = call_anew('ZCARD', lists[#lists])
    if used[2] > 0 and used[2] >= most[2] then
      trim(lists[#lists]) -- ids of records that somebody deleted would hold the limit for good
      used[2] = redis.call('ZCARD', lists[#lists])
    end
  end
  if most[3] or most[4] then
    local day, n = string.format('%d', math.floor(now() / 86400)), 0
    for word in string.gmatch(call_anew('HGET', P .. ':usage:' .. day .. ':' .. tenant, 'key=' .. key) or '', '%S+') do
      n = n + 1
      if n == FRAMES_AT then used[3] = num(word) or 0 end
      if n == TOKENS_AT or n == TOKENS_AT + 1 then used[4] = used[4] + (num(word) or 0) end
    end
  end
  for n, name in ipairs(QUOTA) do
    if most[n] and used[n] >= most[n] then return name, table.concat(used, ' ') end
  end
  return nil, table.concat(used, ' ')
end

-- Counts a job that was recorded for a key; returns the use with it.
local function count_submitted(key, limits, used)
  if limits == '' then return '' end
  local jobs, open, rest = string.match(used, '^(%S+) (%S+) (.*)$')
  if string.sub(limits, 1, 1) ~= '-' then
    call_anew('HSET', submitted_key(), key, jobs + 1)
    redis.call('EXPIRE', submitted_key(), 2 * 86400)
  end
  return string.format('%d %d %s', jobs + 1, open + 1, rest)
end

-- The outbox has the ends of jobs with a webhook, for the gateways; `tells` has the states that the webhook wants.
-- It is written here and nowhere else, so that there is no end without its entry.
local MOST_UNTOLD = 1000000 -- if no gateway takes them, the oldest leave
local function tell(rec, state, failed)
  if not rec.tells or not string.find(' ' .. rec.tells .. ' ', ' ' .. state .. ' ', 1, true) then return end
  local webhook = get(rec.id, 'webhook')[1]
  if not webhook then return end
  call_anew('XADD', P .. ':outbox', 'MAXLEN', '~', MOST_UNTOLD, '*', 'job', rec.id, 'state', state, 'attempt', rec.attempt,
    'tenant', rec.tenant, 'created_at', rec.created_at, 'at', stamp(now()), 'failure', failed or '', 'webhook', webhook)
end

-- Counts the end of a job for good, a failure by its code; metrics have these numbers.
local function count_for_good(rec, state)
  call_anew('HINCRBY', P .. ':ended', state == 'failed' and 'failed ' .. (rec.code or 'other') or state, 1)
end

local function finalize(rec, state, ...)
  local id = rec.id
  forget_places(rec)
  if rec.flight then end_flight(rec.flight) end
  if rec.follows then call_anew('ZREM', followers(rec.follows), id) end
  if state == 'succeeded' and (rec.attempt ~= '1' or rec.segments) then
    redis.call('HDEL', job_key(id), 'failure', 'kept', 'kept_at', 'segments')
  end
  local fields, failed = {'state', state, 'finished_at', stamp(now()), ...}, nil
  for n = 1, #fields, 2 do
    if fields[n] == 'failure' then failed = fields[n + 1] end
  end
  if rec.spent then fields[#fields + 1], fields[#fields + 2] = 'stages', rec.spent end
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
  if state == 'failed' then list_dead(rec) end
  prolong_lists(rec)
  emit(id, 'state', state, rec.attempt)
  redis.call('EXPIRE', P .. ':events:' .. id, ttl)
  count_use(rec, state)
  count_for_good(rec, state)
  count_end(rec, state, failed)
  tell(rec, state, failed)
  if not rec.segments then return end
  if state == 'succeeded' then
    redis.call('DEL', segments_key(id))
  else
    redis.call('EXPIRE', segments_key(id), ttl)
  end
end

-- Ends a job as failed. `code` is the failure's, or `other` if it is none of errors.py, so that there are few lists;
-- failures with the same `group` have equal messages, but for numbers and names in these.
local function fail_for_good(rec, failed, code, group)
  rec.code = code
  finalize(rec, 'failed', 'failure', failed, 'code', code, 'group', group)
end

local function cancel_now(rec, stage)
  finalize(rec, 'canceled', 'failure',
    failure('canceled', 'canceled on request', stage, false, rec.attempt))
end

local function expire_now(rec)
  finalize(rec, 'expired', 'failure', failure('start_by_passed',
    'no worker started the job before start_by', 'queued', false, rec.attempt))
end

-- Notes an attempt that is over while its job is not: in the record, which has MOST_NOTED of them. The last attempt of
-- a job stands in the record's own fields.
local MOST_NOTED = 30
local function note_attempt(rec, outcome, failed, ended_at)
  local values = get(rec.id, 'worker', 'rung_at', 'started_at')
  local noted = {outcome = outcome, worker = values[1] or nil, queued_at = values[2] or rec.created_at,
    started_at = values[3] or nil, ended_at = ended_at or stamp(now()), failure = failed or nil,
    stages = rec.stages}
  set(rec.id, 'attempt:' .. rec.attempt, cjson.encode(noted))
  local old = tonumber(rec.attempt) - MOST_NOTED
  if old > 0 then redis.call('HDEL', job_key(rec.id), string.format('attempt:%d', old)) end
end

-- Takes a running job back to queued; the caller decides when it stands in line.
local function requeue(rec, ...)
  forget_places(rec)
  -- The next attempt's trace links to this one's.
  set(rec.id, 'state', 'queued', 'previous', rec.token or '', ...)
  redis.call('HDEL', job_key(rec.id), 'stage', 'worker', 'token')
  hand_over(rec)
end

-- Keeps the result of an attempt that could not store it, for the next one; returns since when it waits.
local function keep(rec, result)
  set(rec.id, 'kept', result, 'kept_at', rec.kept_at or stamp(now()))
  return tonumber(rec.kept_at) or now()
end
