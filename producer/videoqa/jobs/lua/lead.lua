-- prefix, id, token, key -> 'ok', 'follow', 'cancel' or 'lost'
local id, key = ARGV[2], ARGV[4]
local rec = read(id)
local answer = fence(rec, ARGV[3])
if answer ~= 'ok' then return answer end
-- An earlier attempt may have asked something else: another version of the video, or another model.
if rec.flight and rec.flight ~= key then release_followers(id, rec.flight) end
local leader = call_anew('GET', P .. ':flight:' .. key)
if leader and leader ~= id and get(leader, 'flight')[1] == key then
  local before = redis.call('HINCRBY', job_key(id), 'attempt', -1)  -- the model was not asked
  requeue(rec, 'follows', leader)
  call_anew('SADD', P .. ':followers:' .. key, id)
  if before == 0 and rec.start_by then redis.call('ZADD', P .. ':startby', rec.start_by, id) end
  local is_own = (get(leader, 'tenant')[1] or '') == rec.tenant
  emit(id, 'state', 'queued', before, 'message',
    'waits for ' .. (is_own and leader or 'a job') .. ', which asks the same')
  return 'follow'
end
redis.call('SET', P .. ':flight:' .. key, id)
set(id, 'flight', key)
return answer
