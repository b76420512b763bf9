-- Functions of one record, which all scripts have. ARGV[1] is the prefix; the clock is Redis' own.
local P = ARGV[1]
local STREAM_LENGTH = 1000
local GONE_EXTRA_S = 7 * 86400
local WORKER_TTL_S = 60 -- a worker that said nothing for so long is gone

local clock
local function now()
  if not clock then
    local found = redis.call('TIME')
    clock = tonumber(found[1]) + tonumber(found[2]) / 1e6
  end
  return clock
end
local function stamp(seconds) return string.format('%.6f', seconds) end
local function job_key(id) return P .. ':job:' .. id end
local function segments_key(id) return P .. ':segments:' .. id end

-- Returns fields of a record, none if its key holds no hash.
local function get(id, ...)
  local rec = redis.pcall('HMGET', job_key(id), ...)
  if not rec.err then return rec end
  if string.find(rec.err, 'WRONGTYPE', 1, true) then return {} end
  return redis.call('HMGET', job_key(id), ...)
end
local function set(id, ...) redis.call('HSET', job_key(id), ...) end

-- Calls a command on a key whose content may be lost; one that holds another type is deleted first.
local function call_anew(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if string.find(reply.err, 'WRONGTYPE', 1, true) or string.find(reply.err, 'exhausted', 1, true) then
    redis.call('DEL', key)
  end
  return redis.call(command, key, ...)
end

-- Returns the number that a text is, nil if it is none that times and scores can be.
local function num(text)
  local n = text and string.find(text, '^%-?[%d.eE+-]+$') and tonumber(text)
  if n and n > -1e12 and n < 1e12 then return n end
end

local FIELDS = {'state', 'queue', 'attempt', 'max_attempts', 'ttl_s', 'timeout_s', 'created_at', 'place', 'rung_at',
  'kept_at', 'start_by', 'deadline', 'tenant', 'token', 'stage', 'worker', 'next_at', 'follows', 'suspect', 'overdue',
  'draining', 'flight', 'idem', 'filters', 'segments', 'shared', 'tells', 'key', 'code', 'stages'}

-- Returns a record with the fields that transitions work with; one without `state` is no record. An empty field is
-- as none: it costs no further command to write one.
local function read(id)
  local values = get(id, unpack(FIELDS))
  local rec = {id = id}
  for n, field in ipairs(FIELDS) do rec[field] = values[n] and values[n] ~= '' and values[n] or nil end
  rec.tenant = rec.tenant or ''
  return rec
end

-- Tells if a record has what the transitions compute with. They leave one alone that has not: a newer release
-- or another program wrote it, and an error in a script would stop a queue, a reaper or all leases of a worker.
local function is_sound(rec)
  if not rec.state or not rec.queue then return false end
  for _, field in ipairs({'attempt', 'max_attempts'}) do
    if not num(rec[field]) or not string.find(rec[field], '^%d+$') then return false end
  end
  for _, field in ipairs({'ttl_s', 'timeout_s', 'created_at'}) do
    if not num(rec[field]) then return false end
  end
  for _, field in ipairs({'place', 'rung_at', 'kept_at', 'start_by', 'deadline'}) do
    if rec[field] and not num(rec[field]) then return false end
  end
  return true
end

-- The field `stages` of a record has when its attempt came into each stage, 'fetching@SECONDS sampling@SECONDS', and, of
-- an attempt in segments, which comes into them many times, seconds of those before, 'fetching=SECONDS'.
local MOST_STAGES = 300
local function shorten_stages(text)
  local spent, stage, since = {}, nil, nil
  for name, kind, n in string.gmatch(text, '(%l+)([@=])([%d.]+)') do
    n = num(n) or 0
    if kind == '=' then
      spent[name] = (spent[name] or 0) + n
    else
      if stage then spent[stage] = (spent[stage] or 0) + math.max(0, n - since) end
      stage, since = name, n
    end
  end
  local words = {}
  for name, n in pairs(spent) do words[#words + 1] = string.format('%s=%.3f', name, n) end
  if stage then words[#words + 1] = stage .. '@' .. stamp(since) end
  return table.concat(words, ' ')
end

local function add_stage(rec, stage, at)
  local text = (rec.stages or '') .. ' ' .. stage .. '@' .. at
  return #text > MOST_STAGES and shorten_stages(text) or text
end

-- Writes an event and returns its id, in which its time is.
local function emit(id, kind, state, attempt, ...)
  return call_anew('XADD', P .. ':events:' .. id, 'MAXLEN', '~', STREAM_LENGTH, '*',
    'type', kind, 'state', state, 'attempt', attempt, ...)
end

local function failure(code, message, stage, retryable, attempt)
  local body = {code = code, message = message, retryable = retryable, attempt = tonumber(attempt)}
  if stage then body.stage = stage end
  return cjson.encode(body)
end

-- Returns why a producer's write is refused: the record is 'unknown' or 'unreadable'; nil: it is not. To the client
-- of a tenant the records of others are unknown; an operator's, with the tenant '', sees all.
local function refuse(rec, tenant)
  if not rec.state and redis.call('EXISTS', job_key(rec.id)) == 0 then return 'unknown' end
  if tenant ~= '' and rec.tenant ~= tenant then return 'unknown' end
  if not is_sound(rec) then return 'unreadable' end
end

-- Tells if a worker's write still counts: 'ok', 'cancel', or 'lost' if it must be refused. The fence is the
-- claim's token, not the attempt's number: a Redis that lost its last second hands out attempt numbers twice.
local function fence(rec, token)
  if rec.token ~= token or not is_sound(rec) then return 'lost' end
  if rec.state == 'running' then return 'ok' end
  if rec.state == 'canceling' then return 'cancel' end
  return 'lost'
end
