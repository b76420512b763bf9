-- prefix, id, tenant -> {'ok'}: the failed job's record is gone now; {'state', state}, {'unknown'} or {'unreadable'}
local id = ARGV[2]
local refusal = refuse(id, ARGV[3])
if refusal then return {refusal} end
local rec = get(id, 'state', 'idem')
if rec[1] ~= 'failed' then return {'state', rec[1]} end
call_on_dead(id, 'ZREM', id)
if rec[2] then redis.call('DEL', P .. ':idem:' .. rec[2]) end
redis.call('DEL', job_key(id), P .. ':events:' .. id, segments_key(id))
return {'ok'}
