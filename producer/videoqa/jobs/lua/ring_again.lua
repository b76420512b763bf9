-- Counts a bell anew for queues in which the broker holds no message though bells are on their way by our count.
-- prefix, queues... -> queues to ring
for n = 2, #ARGV do
  if redis.call('EXISTS', turns(ARGV[n])) == 1 then
    redis.call('HSET', DISPATCH, ARGV[n], 0)
    add_ring(count_bell(ARGV[n]))
  end
end
return rings
