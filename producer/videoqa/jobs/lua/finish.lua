-- prefix, id, token, result, result_url, cache key, its ttl_s, its entry -> 'ok', 'cancel' (canceled instead) or 'lost'
local id, token = ARGV[2], ARGV[3]
local answer, attempt = fence(id, token)
if answer == 'lost' then
  local rec = get(id, 'state', 'token')
  if rec[1] == 'succeeded' and rec[2] == token then return 'ok' end  -- the reply was lost
  return answer
end
if answer == 'cancel' then
  cancel_now(id, attempt, 'storing')
  return answer
end
redis.call('HDEL', job_key(id), 'failure', 'kept', 'kept_at')
if ARGV[4] ~= '' then set(id, 'result', ARGV[4]) end
if ARGV[6] ~= '' then redis.call('SET', P .. ':answer:' .. ARGV[6], ARGV[8], 'EX', ARGV[7]) end
finalize(id, 'succeeded', 'result_url', ARGV[5])
return answer
