-- prefix, id -> 1 if the failed job's record is gone now, 0 if it is not one of the dead
local id = ARGV[2]
if redis.call('ZREM', P .. ':dead', id) == 0 then return 0 end
local rec = get(id, 'state', 'idem')
if rec[1] ~= 'failed' then return 0 end  -- it was retried, or its life is over
if rec[2] then redis.call('DEL', P .. ':idem:' .. rec[2]) end
redis.call('DEL', job_key(id), P .. ':events:' .. id, segments_key(id))
return 1
