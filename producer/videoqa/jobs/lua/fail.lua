-- prefix, id, token, failure, retryable 0|1, delay_s, kept, keep_s -> 'failed', 'retry', 'canceled' or 'lost'
local id, kept = ARGV[2], ARGV[7]
local rec = read(id)
local answer = fence(rec, ARGV[3])
if answer == 'lost' then return answer end
if answer == 'cancel' then
  cancel_now(rec, rec.stage)
  return 'canceled'
end
local last = tonumber(rec.attempt) >= tonumber(rec.max_attempts)
if kept ~= '' then
  -- Storing alone is tried again, for `keep_s`, whatever attempts are left.
  last = now() > keep(rec, kept) + tonumber(ARGV[8])
end
if ARGV[5] == '0' or last then
  finalize(rec, 'failed', 'failure', ARGV[4])
  return 'failed'
end
if kept ~= '' then redis.call('HINCRBY', job_key(id), 'max_attempts', 1) end
requeue(rec, 'failure', ARGV[4])
if cjson.decode(ARGV[4]).code == 'engine_stopped' then set(id, 'suspect', '1') end
delay(rec, now() + tonumber(ARGV[6]))
emit(id, 'retry', 'queued', rec.attempt, 'message', cjson.decode(ARGV[4]).message)
return 'retry'
