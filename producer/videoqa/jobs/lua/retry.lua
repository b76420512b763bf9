-- prefix, id, tenant -> {'ok', queue to ring or ''}, {'state', state}, {'unknown'} or {'unreadable'}
local id = ARGV[2]
local rec = read(id)
local refusal = refuse(rec, ARGV[3])
if refusal then return {refusal} end
local is_json, request = pcall(cjson.decode, get(id, 'request')[1])
local allowed = is_json and type(request) == 'table' and tonumber(request.max_attempts)
if not allowed or allowed % 1 ~= 0 then return {'unreadable'} end
if rec.state ~= 'failed' and rec.state ~= 'canceled' and rec.state ~= 'expired' then
  return {'state', rec.state}
end
redis.call('PERSIST', job_key(id))
redis.call('PERSIST', P .. ':events:' .. id)
if rec.segments then redis.call('PERSIST', segments_key(id)) end
if rec.idem then redis.call('PERSIST', P .. ':idem:' .. rec.idem) end
redis.call('DEL', P .. ':gone:' .. id)
unlist(rec, rec.state)
list_in(rec, 'open')
prolong_lists(rec)
set(id, 'state', 'queued', 'max_attempts', tonumber(rec.attempt) + allowed)
-- A retried job is wanted now: its old start_by no longer holds, and it stands in line anew.
redis.call('HDEL', job_key(id), 'failure', 'finished_at', 'start_by', 'worker', 'kept_at', 'suspect', 'place')
rec.place = nil
emit(id, 'state', 'queued', rec.attempt, 'message', 'retried on request')
return {'ok', enqueue(rec) or ''}
