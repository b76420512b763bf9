-- prefix, queue, paused 0|1 -> whether anything changed
local queue = ARGV[2]
if ARGV[3] == '1' then return redis.call('SADD', P .. ':paused', queue) end
-- Bells that were heard meanwhile are missing now: the next round of the reaper rings for them.
redis.call('HSET', P .. ':bells', queue .. ':short', '0')
return redis.call('SREM', P .. ':paused', queue)
