-- prefix, tenant, queues that workers serve...
-- -> {{queue, waiting, tenants, paused 0|1, submission of its oldest job}...}
-- of the queues in which jobs wait, that are paused, or that are served; for a tenant, only of its own jobs
local tenant, names, listed = ARGV[2], {}, {}
local function add(queues)
  for _, queue in ipairs(queues) do
    if not listed[queue] then listed[queue], names[#names + 1] = true, queue end
  end
end

local function tenants_of(queue)
  if tenant == '' then return redis.call('ZRANGE', turns(queue), 0, -1) end
  return redis.call('EXISTS', line(queue, tenant)) == 1 and {tenant} or {}
end

local function count(queue)
  return tenant == '' and waiting(queue) or redis.call('ZCARD', line(queue, tenant))
end

for n = 3, #ARGV do add({ARGV[n]}) end
if tenant == '' then add(redis.call('SMEMBERS', P .. ':paused')) end
for _, queue in ipairs(redis.call('SMEMBERS', P .. ':queues')) do
  if count(queue) > 0 then add({queue}) end
end

-- A tenant's jobs stand in the order of their bells, so the oldest of all is first in one of the lines.
local function oldest(queue, tenants)
  local found
  for _, each in ipairs(tenants) do
    local id = redis.call('ZRANGE', line(queue, each), 0, 0)[1]
    local at = id and get(id, 'created_at')[1]
    if num(at) and (not found or num(at) < num(found)) then found = at end
  end
  return found or ''
end

local found = {}
for n, queue in ipairs(names) do
  local tenants = tenants_of(queue)
  found[n] = {queue, count(queue), #tenants,
    redis.call('SISMEMBER', P .. ':paused', queue), oldest(queue, tenants)}
end
return found
