-- A bulk action is a hash; whoever moves it on holds a lease, by the time in `due`, and writes under its own name.
-- prefix, 'create', id, what was asked as JSON, most that are kept -> {'ok'}; nothing changes if there is one
-- prefix, 'take', id or '' for any that is due, holder, lease_s -> {id}, {'busy'} or {'none'}
-- prefix, 'release', id, holder -> {'ok'}: any process may take it at once
-- prefix, 'end', id, holder or '', status, message, time for which it is kept -> {'ok'}, {'ended'} or {'none'}
local ALL, DUE = P .. ':bulks', P .. ':bulks:due'
local function bulk_key(id) return P .. ':bulk:' .. id end
local call, id = ARGV[2], ARGV[3]

local function read_bulk(one)
  local found = redis.pcall('HMGET', bulk_key(one), 'info', 'status', 'holder')
  return not found.err and found[1] and found or nil
end

if call == 'create' then
  if read_bulk(id) then return {'ok'} end
  redis.call('DEL', bulk_key(id))
  redis.call('HSET', bulk_key(id), 'info', ARGV[4], 'status', 'pending', 'updated_at', stamp(now()))
  call_anew('ZADD', ALL, stamp(now()), id)
  call_anew('ZADD', DUE, stamp(now()), id)
  for _ = 1, 2 do -- those that are gone leave, and the oldest if there are too many
    local oldest = call_anew('ZRANGE', ALL, 0, 0)[1]
    local is_gone = oldest and redis.call('EXISTS', bulk_key(oldest)) == 0
    if is_gone or redis.call('ZCARD', ALL) > tonumber(ARGV[5]) then redis.call('ZREM', ALL, oldest) end
  end
  return {'ok'}
end

if call == 'take' then
  local ids = {id}
  if id == '' then ids = call_anew('ZRANGEBYSCORE', DUE, '-inf', stamp(now()), 'LIMIT', 0, 20) end
  for _, one in ipairs(ids) do
    local found = read_bulk(one)
    if not found or (found[2] ~= 'pending' and found[2] ~= 'running') then
      call_anew('ZREM', DUE, one)
    else
      local due = num(call_anew('ZSCORE', DUE, one))
      if due and due > now() and found[3] ~= ARGV[4] then return {'busy'} end
      redis.call('HSET', bulk_key(one), 'holder', ARGV[4], 'status', 'running')
      call_anew('ZADD', DUE, stamp(now() + tonumber(ARGV[5])), one)
      return {one}
    end
  end
  return {'none'}
end

local found = read_bulk(id)
if call == 'release' then
  if found and found[3] == ARGV[4] and found[2] == 'running' then call_anew('ZADD', DUE, stamp(now()), id) end
  return {'ok'}
end
if not found then return {'none'} end
if found[2] ~= 'pending' and found[2] ~= 'running' then return {'ended'} end
if ARGV[4] ~= '' and found[3] ~= ARGV[4] then return {'ended'} end
redis.call('HSET', bulk_key(id), 'status', ARGV[5], 'message', ARGV[6], 'updated_at', stamp(now()))
redis.call('EXPIRE', bulk_key(id), ARGV[7])
call_anew('ZREM', DUE, id)
return {'ok'}
