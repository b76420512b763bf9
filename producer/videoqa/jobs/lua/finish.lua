-- prefix, id, token, result, result_url, cache key, its ttl_s, its entry, numbers of use,
-- sums for the minute rings as JSON, seconds of the stages
-- -> 'ok', 'woken' (also ok: jobs came to wait by it), 'cancel' (canceled instead) or 'lost'
local id, token = ARGV[2], ARGV[3]
local rec = read(id)
local answer = fence(rec, token)
if answer == 'lost' then
  if rec.state == 'succeeded' and rec.token == token then return 'ok' end  -- the reply was lost
  return answer
end
if answer == 'cancel' then
  cancel_now(rec, 'storing')
  return answer
end
if ARGV[6] ~= '' then redis.call('SET', P .. ':answer:' .. ARGV[6], ARGV[8], 'EX', ARGV[7]) end
rec.used, rec.measured, rec.spent = ARGV[9], ARGV[10], ARGV[11] ~= '' and ARGV[11]
if ARGV[4] ~= '' then
  finalize(rec, 'succeeded', 'result_url', ARGV[5], 'result', ARGV[4])
else
  finalize(rec, 'succeeded', 'result_url', ARGV[5])
end
return has_woken and 'woken' or answer
