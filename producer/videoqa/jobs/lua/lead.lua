-- prefix, id, token, key -> 'ok', 'follow', 'cancel' or 'lost'
local id, key = ARGV[2], ARGV[4]
local answer, attempt = fence(id, ARGV[3])
if answer ~= 'ok' then return answer end
-- An earlier attempt may have asked something else: another version of the video, or another model.
local before = get(id, 'flight')[1]
if before and before ~= key then release_followers(id) end
local leader = call_anew('GET', P .. ':flight:' .. key)
if leader and leader ~= id and get(leader, 'flight')[1] == key then
  redis.call('HINCRBY', job_key(id), 'attempt', -1)  -- the model was not asked
  requeue(id, 'follows', leader)
  call_anew('SADD', P .. ':followers:' .. key, id)
  local is_own = get(leader, 'tenant')[1] == get(id, 'tenant')[1]
  emit(id, 'state', 'queued', attempt - 1, 'message',
    'waits for ' .. (is_own and leader or 'a job') .. ', which asks the same')
  return 'follow'
end
redis.call('SET', P .. ':flight:' .. key, id)
set(id, 'flight', key)
return answer
