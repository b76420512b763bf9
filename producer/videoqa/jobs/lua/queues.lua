-- prefix, queues that workers serve... -> {{queue, waiting, tenants, paused 0|1, submission of its oldest job}...}
-- of the queues in which jobs wait, that are paused, or that are served
local names, listed = {}, {}
local function add(queues)
  for _, queue in ipairs(queues) do
    if not listed[queue] then listed[queue], names[#names + 1] = true, queue end
  end
end
add(redis.call('SMEMBERS', P .. ':paused'))
for n = 2, #ARGV do add({ARGV[n]}) end
for _, queue in ipairs(redis.call('SMEMBERS', P .. ':queues')) do
  if waiting(queue) > 0 then add({queue}) end
end

-- A tenant's jobs stand in the order of their bells, so the oldest of all is first in one of the lines.
local function oldest(queue)
  local found
  for _, tenant in ipairs(redis.call('ZRANGE', turns(queue), 0, -1)) do
    local id = redis.call('ZRANGE', line(queue, tenant), 0, 0)[1]
    local at = id and get(id, 'created_at')[1]
    if at and (not found or tonumber(at) < tonumber(found)) then found = at end
  end
  return found or ''
end

local found = {}
for n, queue in ipairs(names) do
  found[n] = {queue, waiting(queue), redis.call('ZCARD', turns(queue)),
    redis.call('SISMEMBER', P .. ':paused', queue), oldest(queue)}
end
return found
