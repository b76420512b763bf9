-- Functions that the scripts of deliveries share. ARGV[1] is the prefix; the clock is Redis' own.
local P = ARGV[1] .. ':hooks'
local KEEP_S, KEEP_DELIVERED_S = 14 * 86400, 86400
local MOST_LOGGED = 20

local found_time = redis.call('TIME')
local now = tonumber(found_time[1]) + tonumber(found_time[2]) / 1e6
local function stamp(seconds) return string.format('%.6f', seconds) end

-- Calls a command on a key whose content may be lost; one that holds another type is deleted first.
local function call_anew(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if string.find(reply.err, 'WRONGTYPE', 1, true) then redis.call('DEL', key) end
  return redis.call(command, key, ...)
end

-- Returns the number that a text is, nil if it is none that times and scores can be.
local function num(text)
  local n = text and string.find(text, '^%-?[%d.eE+-]+$') and tonumber(text)
  if n and n > -1e12 and n < 1e12 then return n end
end

local function quote(tenant) return (string.gsub(tenant, '[%%:|]', {['%'] = '%25', [':'] = '%3A', ['|'] = '%7C'})) end
local function delivery_key(id) return P .. ':delivery:' .. id end

-- Returns the delivery with its receiver, which is a tenant's: one tenant's calls hold up no other's at the same host.
local function read(id)
  local pairs_of = redis.pcall('HGETALL', delivery_key(id))
  if pairs_of.err then redis.call('DEL', delivery_key(id)) pairs_of = {} end
  local rec = {}
  for n = 1, #pairs_of, 2 do rec[pairs_of[n]] = pairs_of[n + 1] end
  if not (rec.receiver and rec.tenant and rec.status and rec.job and num(rec.at)) then return nil end
  rec.id, rec.lane = id, quote(rec.tenant) .. '|' .. rec.receiver
  return rec
end

-- Lists by the time of the job's end: `P:hooks:list:STATUS:TENANT`, '' for all tenants, and those of a job.
local function each_list(rec, status, call)
  call(P .. ':list:' .. status .. ':')
  if rec.tenant ~= '' then call(P .. ':list:' .. status .. ':' .. quote(rec.tenant)) end
end

local function list_in(rec, status)
  local kept_s = status == 'delivered' and KEEP_DELIVERED_S or KEEP_S
  each_list(rec, status, function(key)
    call_anew('ZADD', key, rec.at, rec.id)
    redis.call('ZREMRANGEBYSCORE', key, '-inf', stamp(now - kept_s))
    redis.call('EXPIRE', key, KEEP_S)
  end)
end

local function move(rec, status)
  if rec.status ~= status then
    each_list(rec, rec.status, function(key) call_anew('ZREM', key, rec.id) end)
    redis.call('HSET', delivery_key(rec.id), 'status', status)
    rec.status = status
  end
  list_in(rec, status)
end

-- Receivers whose last call succeeded are `proven`, and stand in `receivers` by the time of their next call; all others,
-- new ones too, stand in `unproven` and get one call at a time.
-- `due` has a receiver's deliveries by the time of their next attempt, or the end of the lease of one under way;
-- `flying` those under way.
local RECEIVERS, UNPROVEN, PROVEN = P .. ':receivers', P .. ':unproven', P .. ':proven'
local function due(lane) return P .. ':due:' .. lane end
local function flying(lane) return P .. ':flying:' .. lane end

local function is_proven(lane) return call_anew('ZSCORE', PROVEN, lane) and true or false end

-- Puts a receiver where its next delivery is taken from; out of both if it has none.
local function place(lane, most)
  local first = call_anew('ZRANGE', due(lane), 0, 0, 'WITHSCORES')
  local proven = is_proven(lane)
  call_anew('ZREM', proven and UNPROVEN or RECEIVERS, lane)
  local key = proven and RECEIVERS or UNPROVEN
  if not first[1] then
    call_anew('ZREM', key, lane)
    return
  end
  local at = tonumber(first[2])
  call_anew('ZREMRANGEBYSCORE', flying(lane), '-inf', stamp(now))
  if most and redis.call('ZCARD', flying(lane)) >= (proven and most or 1) then
    at = math.max(at, tonumber(redis.call('ZRANGE', flying(lane), 0, 0, 'WITHSCORES')[2]))
  end
  call_anew('ZADD', key, stamp(math.max(at, now)), lane)
end

local function make_due(rec, at)
  call_anew('ZADD', due(rec.lane), stamp(at), rec.id)
  redis.call('EXPIRE', due(rec.lane), 2 * KEEP_S)
end

-- A URL that answered 410 is called no more, for this tenant, until a replay.
local GONE = P .. ':gone'
local function gone_member(rec) return redis.sha1hex(rec.tenant .. '\n' .. (rec.url or '')) end
