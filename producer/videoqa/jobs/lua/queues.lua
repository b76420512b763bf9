-- prefix, tenant, seconds without a reaper's round after which one is due
-- -> {is a round due 0|1, {queue, waiting, tenants, paused 0|1, submission of its oldest job, its age in seconds,
-- running, delayed, due, ready workers, their slots}...}
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

local last = num(call_anew('GET', P .. ':round'))
local is_due = not last or now() < last or now() - last >= tonumber(ARGV[3])
local found = {is_due and redis.call('EXISTS', LEASES, P .. ':delayed', P .. ':startby') > 0 and 1 or 0}
for _, queue in ipairs(names) do
  local all = tenant == '' and waiting(queue) or line(queue, tenant)
  local first, size = redis.call('ZRANGE', all, 0, 0)[1], redis.call('ZCARD', all)
  local tenants = tenant == '' and count(turns(queue)) + count(held(queue)) or math.min(size, 1)
  local own = tenant == ''
  local oldest_at = first and get(first, 'created_at')[1] or ''
  local oldest_s = num(oldest_at) and stamp(math.max(0, now() - num(oldest_at))) or ''
  local workers, slots = count_workers(queue)
  found[#found + 1] = {queue, size, tenants, is_paused(queue) and 1 or 0, oldest_at, oldest_s,
    own and count(running(queue)) or 0, own and count(delayed(queue)) or 0,
    own and call_anew('ZCOUNT', delayed(queue), '-inf', stamp(now())) or 0, workers, slots}
end
return found
