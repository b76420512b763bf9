-- prefix, id, tenant -> {'ok'}: the failed job's record is gone now; {'state', state}, {'unknown'} or {'unreadable'}
local id = ARGV[2]
local rec = read(id)
local refusal = refuse(rec, ARGV[3])
if refusal then return {refusal} end
if rec.state ~= 'failed' then return {'state', rec.state} end
unlist(rec, 'failed')
for _, key in ipairs(make_filter_keys(rec)) do call_anew('ZREM', key, id) end
if rec.idem then redis.call('DEL', P .. ':idem:' .. rec.idem) end
redis.call('DEL', job_key(id), P .. ':events:' .. id, segments_key(id))
return {'ok'}
