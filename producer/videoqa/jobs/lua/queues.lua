-- prefix, tenant, seconds without a reaper's round after which one is due
-- -> {is a round due 0|1, {queue, waiting, tenants, paused 0|1, submission of its oldest job, its seconds in line,
-- running, delayed, due, ready workers, their slots, seconds until its oldest job's start_by or '', seconds since it was
-- paused or '', seconds since a worker that serves it was heard or '', all workers,
-- seconds since a delayed job was due or ''}...}
-- of the queues in which jobs wait or run, that are paused, or that are served; for a tenant, only of its own jobs
local tenant, names, listed = ARGV[2], {}, {}
local function add(queue)
  if not listed[queue] then listed[queue], names[#names + 1] = true, queue end
end

local function count(key) return tonumber(call_anew('ZCARD', key)) end

local heard_since = stamp(now() - WORKER_TTL_S)
for _, queue in ipairs(call_anew('ZRANGEBYSCORE', P .. ':served', heard_since, '+inf')) do add(queue) end
if tenant == '' then
  for _, text in ipairs(redis.call('HGETALL', DISPATCH)) do
    local queue = string.match(text, '^(.+):paused$')
    if queue then add(queue) end
  end
end
for _, queue in ipairs(redis.call('ZRANGE', QUEUES, 0, -1)) do
  local own = tenant ~= '' and redis.call('EXISTS', line(queue, tenant))
  if (own or redis.call('EXISTS', waiting(queue), running(queue), delayed(queue))) > 0 then add(queue) end
end

local function count_workers(queue)
  local found, slots = call_anew('ZRANGEBYSCORE', ready(queue), heard_since, '+inf'), 0
  for _, member in ipairs(found) do slots = slots + (tonumber(string.match(member, '^%d+')) or 0) end
  return #found, slots
end

-- Returns how long ago a time was, as text; '' for none.
local function count_seconds(at)
  at = num(at)
  return at and stamp(math.max(0, now() - at)) or ''
end

-- Returns how long ago the first delayed job of the queue came to be due, as text; '' if none is.
local function count_due_seconds(queue)
  local at = num(call_anew('ZRANGE', delayed(queue), 0, 0, 'WITHSCORES')[2])
  return at and at <= now() and stamp(now() - at) or ''
end

local last = num(call_anew('GET', P .. ':round'))
local is_due = not last or now() < last or now() - last >= tonumber(ARGV[3])
local found = {is_due and redis.call('EXISTS', LEASES, P .. ':delayed', P .. ':startby') > 0 and 1 or 0}
for _, queue in ipairs(names) do
  local all = tenant == '' and waiting(queue) or line(queue, tenant)
  local first, size = redis.call('ZRANGE', all, 0, 0)[1], redis.call('ZCARD', all)
  local tenants = tenant == '' and count(turns(queue)) + count(held(queue)) or math.min(size, 1)
  local own = tenant == ''
  local oldest = first and get(first, 'created_at', 'start_by', 'attempt', 'rung_at') or {}
  local oldest_at = oldest[1] or ''
  local start_by = oldest[3] == '0' and num(oldest[2])
  local workers, slots = count_workers(queue)
  found[#found + 1] = {queue, size, tenants, is_paused(queue) and 1 or 0, oldest_at, count_seconds(oldest[4] or oldest_at),
    own and count(running(queue)) or 0, own and count(delayed(queue)) or 0,
    own and call_anew('ZCOUNT', delayed(queue), '-inf', stamp(now())) or 0, workers, slots,
    start_by and stamp(start_by - now()) or '', count_seconds(redis.call('HGET', DISPATCH, queue .. ':paused')),
    count_seconds(call_anew('ZSCORE', P .. ':served', queue)),
    call_anew('ZCOUNT', serving(queue), heard_since, '+inf'), own and count_due_seconds(queue) or ''}
end
return found
