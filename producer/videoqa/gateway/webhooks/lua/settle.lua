-- Notes an attempt. prefix, id, 'delivered' | 'retry' | 'failed', time until the next attempt, its log as JSON, most
-- under way per receiver, 1 if the URL is gone -> status of the delivery, or '' if it is gone
local id, outcome = ARGV[2], ARGV[3]
local rec = read(id)
if not rec then return '' end
call_anew('ZREM', flying(rec.lane), id)
local lines = {}
for line in string.gmatch((rec.log or '') .. '\n' .. ARGV[5], '[^\n]+') do lines[#lines + 1] = line end
redis.call('HSET', delivery_key(id), 'log', table.concat(lines, '\n', math.max(1, #lines - MOST_LOGGED + 1)))
-- An attempt whose lease had ended may be answered after another gateway's: one success is enough.
if rec.status ~= 'delivered' then
  if outcome == 'retry' and rec.status == 'pending' then
    local at = now + tonumber(ARGV[4])
    redis.call('HSET', delivery_key(id), 'next_at', stamp(at))
    make_due(rec, at)
  elseif outcome ~= 'retry' then
    call_anew('ZREM', due(rec.lane), id)
    redis.call('HDEL', delivery_key(id), 'next_at')
    move(rec, outcome)
    if outcome == 'delivered' then
      redis.call('EXPIRE', delivery_key(id), KEEP_DELIVERED_S)
      local of_job = P .. ':job:' .. rec.job
      if call_anew('ZCARD', of_job) == 1 then redis.call('EXPIRE', of_job, KEEP_DELIVERED_S) end
    end
  end
end
if ARGV[7] == '1' then
  call_anew('ZADD', GONE, stamp(now), gone_member(rec))
  redis.call('ZREMRANGEBYSCORE', GONE, '-inf', stamp(now - 2 * KEEP_S))
end
if outcome == 'delivered' then
  call_anew('ZADD', PROVEN, stamp(now), rec.lane)
  redis.call('ZREMRANGEBYSCORE', PROVEN, '-inf', stamp(now - KEEP_S))
else
  call_anew('ZREM', PROVEN, rec.lane)
end
place(rec.lane, tonumber(ARGV[6]))
return rec.status
