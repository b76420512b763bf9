-- prefix, queue, paused 0|1 -> {1 if that changed anything, else 0, queue to ring or ''}
local queue = ARGV[2]
local field = queue .. ':paused'
if ARGV[3] == '1' then
  if is_paused(queue) then return {0, ''} end
  return {redis.call('HSET', DISPATCH, field, stamp(now())), ''}
end
local changed = redis.call('HDEL', DISPATCH, field)
return {changed, changed == 1 and redis.call('EXISTS', turns(queue)) == 1 and count_bell(queue) or ''}
