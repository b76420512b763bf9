-- prefix, id -> jobs that begin before this one, or -1 if it does not wait; an estimate where many tenants wait
local rec = get(ARGV[2], 'queue', 'tenant')
local queue, mine = rec[1], rec[2] or ''
local rank = queue and redis.call('ZRANK', line(queue, mine), ARGV[2])
if not rank then return -1 end
local turn = num(redis.call('ZSCORE', turns(queue), mine) or call_anew('ZSCORE', held(queue), mine)) or 0
local begins = turn + rank

-- Looks at MOST tenants, at even distances; of fewer it looks at all.
local MOST = 16
local count = redis.call('ZCARD', turns(queue))
local looked_at = math.min(count, MOST)
local before, others = 0, 0
for n = 0, looked_at - 1 do
  local place = math.floor(n * count / looked_at)
  local found = redis.call('ZRANGE', turns(queue), place, place, 'WITHSCORES')
  local tenant = found[1]
  if tenant and tenant ~= mine then
    local rounds = begins - tonumber(found[2]) + (tenant < mine and 1 or 0)
    others = others + 1
    before = before + math.max(0, math.min(rounds, redis.call('ZCARD', line(queue, tenant))))
  end
end
if looked_at < count and others > 0 then before = math.floor(before * (count - 1) / others) end
return math.min(rank + before, redis.call('ZCARD', waiting(queue)) - 1)
