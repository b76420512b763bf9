-- prefix, id, tenant -> {'ok', id, attempt, bell, queue}, {'state', state}, {'unknown'} or {'unreadable'}
local id = ARGV[2]
local rec = get(id, 'state', 'attempt', 'request', 'idem')
local refusal = refuse(id, ARGV[3])
if refusal then return {refusal} end
local is_json, request = pcall(cjson.decode, rec[3])
local allowed = is_json and type(request) == 'table' and tonumber(request.max_attempts)
if not allowed or allowed % 1 ~= 0 then return {'unreadable'} end
if rec[1] ~= 'failed' and rec[1] ~= 'canceled' and rec[1] ~= 'expired' then
  return {'state', rec[1]}
end
redis.call('PERSIST', job_key(id))
redis.call('PERSIST', P .. ':events:' .. id)
redis.call('PERSIST', segments_key(id))
if rec[4] then redis.call('PERSIST', P .. ':idem:' .. rec[4]) end
redis.call('DEL', P .. ':gone:' .. id)
call_on_dead(id, 'ZREM', id)
set(id, 'state', 'queued', 'max_attempts', tonumber(rec[2]) + allowed)
-- A retried job is wanted now: its old start_by no longer holds.
redis.call('HDEL', job_key(id), 'failure', 'finished_at', 'start_by', 'worker', 'kept_at', 'suspect', 'bell')
emit(id, 'state', 'queued', rec[2], 'message', 'retried on request')
local bell = enqueue(id)
return {'ok', bell[1], bell[2], bell[3], bell[4]}
