-- prefix, run, tenant, state, report, examples, 1 if it starts now or '', lifetime, most runs of all, most of
-- a tenant, that one as it stands in keys -> 'ok', or 'foreign': it is another tenant's
local id, tenant, life = ARGV[2], ARGV[3], ARGV[8]
local key, at = P .. ':run:' .. id, stamp(now())

local had = redis.pcall('HMGET', key, 'tenant', 'first_at', 'started_at', 'starts')
if had.err then
  call_anew('HSET', key, 'tenant', tenant)
  had = {}
end
if had[1] and had[1] ~= tenant then return 'foreign' end
local started, starts = num(had[3]) and had[3], num(had[4]) or 0
if ARGV[7] == '1' or not started then started, starts = at, starts + 1 end
redis.call('HSET', key, 'tenant', tenant, 'info', ARGV[5], 'examples', ARGV[6],
  'first_at', num(had[2]) and had[2] or at, 'started_at', started, 'starts', string.format('%d', starts),
  'seen_at', at, 'ended_at', ARGV[4] == 'running' and '' or at)
redis.call('EXPIRE', key, life)

-- Lists it, and forgets the runs that were started first where a list has too many.
local function note(list, most)
  call_anew('ZADD', list, started, id)
  redis.call('EXPIRE', list, life)
  while redis.call('ZCARD', list) > tonumber(most) do
    local oldest = redis.call('ZPOPMIN', list)[1]
    if oldest ~= id then redis.call('DEL', P .. ':run:' .. oldest) end
  end
end
if tenant ~= '' then note(P .. ':runs:' .. ARGV[11], ARGV[10]) end
note(P .. ':runs:', ARGV[9])
return 'ok'
