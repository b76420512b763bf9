-- prefix, id, token, key, ask the model even if it has answered 0|1
-- -> 'ok', 'follow', 'cancel' or 'lost'; or 'known' with the entry of an earlier job's answer
local id, key = ARGV[2], ARGV[4]
local rec = read(id)
local answer = fence(rec, ARGV[3])
if answer ~= 'ok' then return {answer} end
-- An earlier attempt may have asked something else: another version of the video, or another model.
if rec.flight and rec.flight ~= key then
  end_flight(rec.flight)
  redis.call('HDEL', job_key(id), 'flight')
  rec.flight = nil
end
local found = redis.call('MGET', flight(key), P .. ':answer:' .. key)
if found[2] and ARGV[5] == '0' then return {'known', found[2]} end
local named = found[1] or ''
local leader = find_other_leader(key, id, named)
if leader and not is_begun(leader) then
  redis.call('HDEL', job_key(leader.id), 'flight') -- it waits, who knows for how long: this one asks
  leader = nil
end
if leader then
  local before = redis.call('HINCRBY', job_key(id), 'attempt', -1)  -- the model was not asked
  requeue(rec, 'follows', key)
  follow(rec, key)
  redis.call('SET', flight(key), leader.id .. FOLLOWED)
  if before == 0 and rec.start_by then redis.call('ZADD', P .. ':startby', rec.start_by, id) end
  emit(id, 'state', 'queued', before, 'message',
    'waits for ' .. (leader.tenant == rec.tenant and leader.id or 'a job') .. ', which asks the same')
  return {'follow'}
end
make_leader(id, key, string.find(named, FOLLOWED, 1, true))
return {answer}
