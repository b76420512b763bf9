-- prefix, id, token, fingerprint, number, segment -> 'ok', 'cancel' or 'lost'
local id, of = ARGV[2], ARGV[4]
local rec = read(id)
local answer = fence(rec, ARGV[3])
if answer ~= 'ok' then return answer end
local key = segments_key(id)
-- Segments under another fingerprint, of another version of the video for example, are dropped.
if call_anew('HGET', key, 'of') ~= of then redis.call('DEL', key) end
if not rec.segments then set(id, 'segments', '1') end
redis.call('HSET', key, 'of', of, ARGV[5], ARGV[6])
return answer
