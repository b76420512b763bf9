-- prefix, worker, announcement or '' of one that leaves, 'slots limit worker' of one that is ready or '',
-- queues that it serves... -> 'ok'
local SERVED_S = 86400
local worker, info, member, queues = ARGV[2], ARGV[3], ARGV[4], table.concat(ARGV, ' ', 5)
local key, silent = P .. ':worker:' .. worker, '(' .. stamp(now() - WORKER_TTL_S)

local had = call_anew('HMGET', key, 'ready', 'queues')
if had[1] ~= member or had[2] ~= queues then
  for queue in string.gmatch(had[2] or '', '%S+') do
    call_anew('ZREM', serving(queue), worker)
    call_anew('ZREM', ready(queue), had[1] or '')
  end
end
if info == '' then
  redis.call('DEL', key)
  call_anew('ZREM', P .. ':workers', worker)
  return 'ok'
end
redis.call('HSET', key, 'info', info, 'ready', member, 'queues', queues)
redis.call('EXPIRE', key, WORKER_TTL_S)

-- Prunes those that said nothing for long, too.
local function note(zset, name)
  call_anew('ZADD', zset, stamp(now()), name)
  redis.call('ZREMRANGEBYSCORE', zset, '-inf', silent)
  redis.call('EXPIRE', zset, WORKER_TTL_S)
end

-- Notes when a queue had a worker last, for a day after that.
local function note_served(queue)
  call_anew('ZADD', P .. ':served', stamp(now()), queue)
  redis.call('ZREMRANGEBYSCORE', P .. ':served', '-inf', '(' .. stamp(now() - SERVED_S))
  redis.call('EXPIRE', P .. ':served', SERVED_S)
end
note(P .. ':workers', worker)
for n = 5, #ARGV do
  note_served(ARGV[n])
  note(serving(ARGV[n]), worker)
  if member ~= '' then note(ready(ARGV[n]), member) end
end
return 'ok'
