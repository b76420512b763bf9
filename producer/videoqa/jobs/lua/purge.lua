-- prefix, id -> {'ok'}: the failed job's record is gone now; {'state', state}, {'unknown'} or {'unreadable'}
local id = ARGV[2]
local refusal = refuse(id)
if refusal then return {refusal} end
local rec = get(id, 'state', 'idem')
if rec[1] ~= 'failed' then return {'state', rec[1]} end
redis.call('ZREM', P .. ':dead', id)
if rec[2] then redis.call('DEL', P .. ':idem:' .. rec[2]) end
redis.call('DEL', job_key(id), P .. ':events:' .. id, segments_key(id))
return {'ok'}
