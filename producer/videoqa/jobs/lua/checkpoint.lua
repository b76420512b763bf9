-- prefix, id, token, fingerprint, number, segment, start, then of each answer that a stream has: question id, text
-- -> 'ok', 'cancel' or 'lost'
local id, of = ARGV[2], ARGV[4]
local rec = read(id)
local answer = fence(rec, ARGV[3])
if answer ~= 'ok' then return answer end
local key = segments_key(id)
-- Segments under another fingerprint, of another version of the video for example, are dropped.
if call_anew('HGET', key, 'of') ~= of then redis.call('DEL', key) end
if not rec.segments then set(id, 'segments', '1') end
redis.call('HSET', key, 'of', of)
if redis.call('HSET', key, ARGV[5], ARGV[6]) == 0 then return answer end -- it was stored and told before
-- In one step with the segment, whose text no later attempt would tell.
for n = 8, #ARGV, 2 do
  emit(id, 'text', rec.state, rec.attempt, 'stage', rec.stage or 'generating', 'question_id', ARGV[n], 'text', ARGV[n + 1], 'start', ARGV[7])
end
return answer
