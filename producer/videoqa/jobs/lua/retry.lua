-- prefix, id -> {'ok', id, attempt, bell, queue}, {'state', state} or {'unknown'}
local id = ARGV[2]
local rec = get(id, 'state', 'attempt', 'request', 'idem')
if not rec[1] then return {'unknown'} end
if rec[1] ~= 'failed' and rec[1] ~= 'canceled' and rec[1] ~= 'expired' then
  return {'state', rec[1]}
end
redis.call('PERSIST', job_key(id))
redis.call('PERSIST', P .. ':events:' .. id)
redis.call('PERSIST', segments_key(id))
if rec[4] then redis.call('PERSIST', P .. ':idem:' .. rec[4]) end
redis.call('DEL', P .. ':gone:' .. id)
redis.call('ZREM', P .. ':dead', id)
local allowed = cjson.decode(rec[3]).max_attempts
set(id, 'state', 'queued', 'max_attempts', tonumber(rec[2]) + allowed)
-- A retried job is wanted now: its old start_by no longer holds.
redis.call('HDEL', job_key(id), 'failure', 'finished_at', 'start_by', 'worker', 'kept_at', 'suspect', 'bell')
emit(id, 'state', 'queued', rec[2], 'message', 'retried on request')
local bell = enqueue(id)
return {'ok', bell[1], bell[2], bell[3], bell[4]}
