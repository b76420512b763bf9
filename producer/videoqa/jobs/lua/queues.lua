-- prefix, tenant -> {{queue, waiting, tenants, paused 0|1}...}: for a tenant, of its own jobs only
local tenant, found = ARGV[2], {}
for _, queue in ipairs(redis.call('SMEMBERS', P .. ':queues')) do
  local count, tenants
  if tenant == '' then
    count, tenants = waiting(queue), redis.call('ZCARD', turns(queue))
  else
    count = redis.call('ZCARD', line(queue, tenant))
    tenants = math.min(count, 1)
  end
  found[#found + 1] = {queue, count, tenants, redis.call('SISMEMBER', P .. ':paused', queue)}
end
return found
