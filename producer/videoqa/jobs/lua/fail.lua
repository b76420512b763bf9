-- prefix, id, token, failure, retryable 0|1, delay_s, kept, keep_s, code for lists, group, once 0|1
-- -> 'failed', 'retry', 'canceled' or 'lost'
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
-- A failure that is retried once is final when the same input has led to it before, on whichever worker.
if ARGV[11] == '1' then
  local failed = cjson.decode(ARGV[4])
  local done = rec.segments and redis.call('HLEN', segments_key(id)) or 0
  local input = failed.code .. ' ' .. (failed.param or '') .. ' ' .. done
  local before = get(id, 'failed_once')[1] or ''
  local first = string.match('\n' .. before, '\n' .. string.gsub(input, '%p', '%%%0') .. ' in (%d+)\n')
  if first then
    failed.retryable = false
    failed.message = failed.message .. '; attempt ' .. first .. ' failed in this way on the same input, so it is not tried again'
    ARGV[4], ARGV[5] = cjson.encode(failed), '0'
  else
    set(id, 'failed_once', string.sub(before, -2000) .. input .. ' in ' .. rec.attempt .. '\n')
  end
end
if ARGV[5] == '0' or last then
  fail_for_good(rec, ARGV[4], ARGV[9], ARGV[10])
  return 'failed'
end
if kept ~= '' then redis.call('HINCRBY', job_key(id), 'max_attempts', 1) end
note_attempt(rec, 'failed', ARGV[4])
requeue(rec, 'failure', ARGV[4])
count_retry(rec, ARGV[4])
if cjson.decode(ARGV[4]).code == 'engine_stopped' then set(id, 'suspect', '1') end
delay(rec, now() + tonumber(ARGV[6]))
emit(id, 'retry', 'queued', rec.attempt, 'message', cjson.decode(ARGV[4]).message)
return 'retry'
