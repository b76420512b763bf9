-- prefix -> {{queue, waiting, tenants, paused 0|1}...}
local found = {}
for _, queue in ipairs(redis.call('SMEMBERS', P .. ':queues')) do
  found[#found + 1] = {queue, waiting(queue), redis.call('ZCARD', turns(queue)),
    redis.call('SISMEMBER', P .. ':paused', queue)}
end
return found
