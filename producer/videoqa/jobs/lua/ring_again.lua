-- Counts a bell anew for queues in which the broker holds no message though bells are on their way by our count.
-- prefix, grace_s, queues... -> queues to ring
for n = 3, #ARGV do
  local queue = ARGV[n]
  if is_old(redis.call('HGET', DISPATCH, queue .. ':at'), tonumber(ARGV[2])) and redis.call('EXISTS', turns(queue)) == 1 then
    redis.call('HSET', DISPATCH, queue, 0)
    add_ring(count_bell(queue))
  end
end
return rings
