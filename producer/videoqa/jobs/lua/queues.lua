-- prefix, tenant, queues that workers serve...
-- -> {{queue, waiting, tenants, paused 0|1, submission of its oldest job, running, delayed, due}...}
-- of the queues in which jobs wait or run, that are paused, or that are served; for a tenant, only of its own jobs
local tenant, names, listed = ARGV[2], {}, {}
local function add(queue)
  if not listed[queue] then listed[queue], names[#names + 1] = true, queue end
end

local function count(key) return tonumber(call_anew('ZCARD', key)) end

for n = 3, #ARGV do add(ARGV[n]) end
if tenant == '' then
  for _, queue in ipairs(redis.call('SMEMBERS', P .. ':paused')) do add(queue) end
end
for _, queue in ipairs(redis.call('SMEMBERS', P .. ':queues')) do
  local own = tenant ~= '' and redis.call('EXISTS', line(queue, tenant))
  if (own or redis.call('EXISTS', waiting(queue), running(queue), delayed(queue))) > 0 then add(queue) end
end

local found = {}
for n, queue in ipairs(names) do
  local all = tenant == '' and waiting(queue) or line(queue, tenant)
  local first, size = redis.call('ZRANGE', all, 0, 0)[1], redis.call('ZCARD', all)
  local tenants = tenant == '' and count(turns(queue)) + count(held(queue)) or math.min(size, 1)
  local own = tenant == ''
  found[n] = {queue, size, tenants, redis.call('SISMEMBER', P .. ':paused', queue),
    first and get(first, 'created_at')[1] or '', own and count(running(queue)) or 0,
    own and count(delayed(queue)) or 0, own and call_anew('ZCOUNT', delayed(queue), '-inf', stamp(now)) or 0}
end
return found
