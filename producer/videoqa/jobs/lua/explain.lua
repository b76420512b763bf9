-- prefix, id -> {jobs that begin before this queued one, or -1: it stands in no line, why it waits, a detail of that};
-- an estimate where many tenants wait
local rec = read(ARGV[2])
if rec.state ~= 'queued' or not is_sound(rec) then return {-1, '', ''} end
local queue, mine = rec.queue, rec.tenant

local function find_position()
  local rank = redis.call('ZRANK', line(queue, mine), rec.id)
  if not rank then return -1 end
  local turn = num(redis.call('ZSCORE', turns(queue), mine) or call_anew('ZSCORE', held(queue), mine)) or 0
  local begins = turn + rank

  -- Looks at MOST tenants, at even distances; of fewer it looks at all.
  local MOST = 8
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
end

-- Returns the state of the workers of a queue of which none is ready: 'loading' if one of them is, else that of the one
-- heard last. Looks at MOST announcements: there may be thousands.
local function find_workers_state(heard_since)
  local MOST, found = 8, nil
  for _, worker in ipairs(redis.call('ZREVRANGEBYSCORE', serving(queue), '+inf', heard_since, 'LIMIT', 0, MOST)) do
    local is_json, info = pcall(cjson.decode, call_anew('HGET', P .. ':worker:' .. worker, 'info') or '')
    local state = is_json and type(info) == 'table' and info.state
    if state ~= 'draining' and state ~= 'broken' then return 'loading' end
    found = found or state
  end
  return found or 'loading'
end

-- Returns the reason why the first job of the queue waits.
local function explain_queue()
  if is_paused(queue) then return 'paused', '' end
  local heard_since = stamp(now() - WORKER_TTL_S)
  if call_anew('ZCOUNT', serving(queue), heard_since, '+inf') == 0 then return 'unserved', '' end
  local last = call_anew('ZREVRANGE', ready(queue), 0, 0, 'WITHSCORES')
  if not last[1] or tonumber(last[2]) < now() - WORKER_TTL_S then return find_workers_state(heard_since), '' end
  if is_exclusive(rec, tonumber(rec.attempt) + 1) then return 'exclusive', '' end
  local limit = tonumber(string.match(last[1], '^%d+ (%d+) '))
  if limit and call_anew('ZCARD', share(mine)) >= limit then return 'tenant', tostring(limit) end
  return 'slots', ''
end

if rec.next_at then return {-1, 'delay', ''} end
if rec.follows then
  local leader = find_other_leader(rec.follows, rec.id)
  return {-1, 'leader', leader and leader.tenant == mine and leader.id or ''}
end
return {find_position(), explain_queue()}
