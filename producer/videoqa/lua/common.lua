-- What every transition shares. ARGV[1] is the prefix; the clock is Redis' own.
local P = ARGV[1]
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1e6
local STREAM_LENGTH = 1000
local GONE_EXTRA_S = 7 * 86400

local function stamp(seconds) return string.format('%.6f', seconds) end
local function job_key(id) return P .. ':job:' .. id end
local function get(id, ...) return redis.call('HMGET', job_key(id), ...) end
local function set(id, ...) redis.call('HSET', job_key(id), ...) end

local function emit(id, kind, state, attempt, ...)
  redis.call('XADD', P .. ':events:' .. id, 'MAXLEN', '~', STREAM_LENGTH, '*',
    'type', kind, 'state', state, 'attempt', attempt, 'at', stamp(now), ...)
end

local function failure(code, message, stage, retryable, attempt)
  local body = {code = code, message = message, retryable = retryable, attempt = tonumber(attempt)}
  if stage then body.stage = stage end
  return cjson.encode(body)
end

local function forget_places(id)
  local queue = get(id, 'queue')[1]
  if queue then redis.call('ZREM', P .. ':waiting:' .. queue, id) end
  redis.call('ZREM', P .. ':leases', id)
  redis.call('ZREM', P .. ':delayed', id)
  redis.call('ZREM', P .. ':startby', id)
end

-- A new serial number for the job's bell; the caller publishes it.
local function ring(id)
  local rec = get(id, 'queue', 'attempt')
  local bell = redis.call('HINCRBY', P .. ':bells', rec[1] .. ':rung', 1)
  set(id, 'bell', bell, 'rung_at', stamp(now))
  redis.call('HDEL', job_key(id), 'next_at')
  redis.call('ZADD', P .. ':waiting:' .. rec[1], bell, id)
  return {id, tostring(tonumber(rec[2]) + 1), tostring(bell), rec[1]}
end

local function finalize(id, state, ...)
  local rec = get(id, 'ttl_s', 'attempt', 'idem')
  forget_places(id)
  set(id, 'state', state, 'finished_at', stamp(now), ...)
  redis.call('HDEL', job_key(id), 'stage', 'next_at')
  local ttl = math.ceil(tonumber(rec[1]))
  redis.call('EXPIRE', job_key(id), ttl)
  redis.call('SET', P .. ':gone:' .. id, state, 'EX', ttl + GONE_EXTRA_S)
  if rec[3] then redis.call('EXPIRE', P .. ':idem:' .. rec[3], ttl) end
  if state == 'failed' then
    redis.call('ZREMRANGEBYSCORE', P .. ':dead', '-inf', stamp(now))
    redis.call('ZADD', P .. ':dead', stamp(now + ttl), id)
  end
  emit(id, 'state', state, rec[2])
  redis.call('EXPIRE', P .. ':events:' .. id, ttl)
end

local function cancel_now(id, attempt, stage)
  finalize(id, 'canceled', 'failure',
    failure('canceled', 'canceled on request', stage, false, attempt))
end

local function expire_now(id, attempt)
  finalize(id, 'expired', 'failure', failure('start_by_passed',
    'no worker started the job before start_by', 'queued', false, attempt))
end

-- From a worker back to queued; the caller says when its bell is to be rung.
local function requeue(id, ...)
  forget_places(id)
  set(id, 'state', 'queued', ...)
  redis.call('HDEL', job_key(id), 'stage', 'worker', 'token')
end

-- The result of an attempt that could not store it, for the next one; returns since when it waits.
local function keep(id, result)
  redis.call('HSETNX', job_key(id), 'kept_at', stamp(now))
  set(id, 'kept', result)
  return tonumber(get(id, 'kept_at')[1])
end

-- Whether a worker's write still counts: 'ok', 'cancel', or 'lost' where it must be refused.
-- Fenced by the claim's token: a Redis that lost its last second hands out attempt numbers twice.
local function fence(id, token)
  local rec = get(id, 'state', 'token', 'attempt')
  if rec[2] ~= token then return 'lost' end
  if rec[1] == 'running' then return 'ok', rec[3] end
  if rec[1] == 'canceling' then return 'cancel', rec[3] end
  return 'lost'
end
