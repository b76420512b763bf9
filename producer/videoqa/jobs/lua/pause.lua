-- prefix, queue, paused 0|1 -> 1 if that changed anything, else 0
local queue = ARGV[2]
if ARGV[3] == '1' then return redis.call('SADD', P .. ':paused', queue) end
-- Bells that were heard during the pause are missing now: the next round of the reaper rings again.
redis.call('HSET', P .. ':bells', queue .. ':short', '0')
return redis.call('SREM', P .. ':paused', queue)
