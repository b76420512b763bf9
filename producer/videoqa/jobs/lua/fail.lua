-- prefix, id, token, failure, retryable 0|1, delay_s, kept, keep_s -> 'failed', 'retry', 'canceled' or 'lost'
local id, kept = ARGV[2], ARGV[7]
local answer, attempt = fence(id, ARGV[3])
if answer == 'lost' then return answer end
local rec = get(id, 'max_attempts', 'stage')
if answer == 'cancel' then
  cancel_now(id, attempt, rec[2] or nil)
  return 'canceled'
end
local last = tonumber(attempt) >= tonumber(rec[1])
if kept ~= '' then
  -- Storing alone is tried again, for `keep_s`, whatever attempts are left.
  last = now > keep(id, kept) + tonumber(ARGV[8])
end
if ARGV[5] == '0' or last then
  finalize(id, 'failed', 'failure', ARGV[4])
  return 'failed'
end
if kept ~= '' then redis.call('HINCRBY', job_key(id), 'max_attempts', 1) end
local due = now + tonumber(ARGV[6])
requeue(id, 'failure', ARGV[4], 'next_at', stamp(due))
if cjson.decode(ARGV[4]).code == 'engine_stopped' then set(id, 'suspect', '1') end
redis.call('ZADD', P .. ':delayed', stamp(due), id)
emit(id, 'retry', 'queued', attempt, 'message', cjson.decode(ARGV[4]).message)
return 'retry'
