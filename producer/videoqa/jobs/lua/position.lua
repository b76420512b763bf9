-- prefix, id -> jobs that begin before this one, or -1 if it does not wait
local rec = get(ARGV[2], 'queue', 'tenant')
local queue, mine = rec[1], rec[2] or ''
local rank = queue and redis.call('ZRANK', line(queue, mine), ARGV[2])
if not rank then return -1 end
local begins = (num(redis.call('ZSCORE', turns(queue), mine)) or 0) + rank
local before = rank
local all = redis.call('ZRANGE', turns(queue), 0, -1, 'WITHSCORES')
for n = 1, #all, 2 do
  local tenant, turn = all[n], tonumber(all[n + 1])
  if tenant ~= mine then
    local rounds = begins - turn + (tenant < mine and 1 or 0)
    before = before + math.max(0, math.min(rounds, redis.call('ZCARD', line(queue, tenant))))
  end
end
return before
