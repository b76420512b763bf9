-- Changes of one job that its caller asks for, with the replies of the scripts that are called like them.
local function cancel_job(id, tenant)
  local rec = read(id)
  local refusal = refuse(rec, tenant)
  if refusal then return {refusal} end
  if rec.state == 'queued' then
    cancel_now(rec, 'queued')
    return {'canceled'}
  end
  if rec.state == 'running' then
    set(id, 'state', 'canceling')
    emit(id, 'state', 'canceling', rec.attempt)
    return {'canceling'}
  end
  return {rec.state}
end

local function retry_job(id, tenant, key, limits)
  local rec = read(id)
  local refusal = refuse(rec, tenant)
  if refusal then return {refusal} end
  local is_json, request = pcall(cjson.decode, get(id, 'request')[1])
  local allowed = is_json and type(request) == 'table' and tonumber(request.max_attempts)
  if not allowed or allowed % 1 ~= 0 then return {'unreadable'} end
  if rec.state ~= 'failed' and rec.state ~= 'canceled' and rec.state ~= 'expired' then
    return {'state', rec.state}
  end
  local limit, used = check_quota(key, rec.tenant, limits)
  if limit then return {'limit', limit, used} end
  redis.call('PERSIST', job_key(id))
  if rec.attempt ~= '0' and redis.call('HEXISTS', job_key(id), 'attempt:' .. rec.attempt) == 0 then
    local last = get(id, 'failure', 'finished_at')
    note_attempt(rec, rec.state, last[1], last[2])
  end
  redis.call('PERSIST', P .. ':events:' .. id)
  if rec.segments then redis.call('PERSIST', segments_key(id)) end
  if rec.idem then redis.call('PERSIST', P .. ':idem:' .. rec.idem) end
  redis.call('DEL', P .. ':gone:' .. id)
  unlist(rec, rec.state)
  list_in(rec, 'open')
  prolong_lists(rec)
  set(id, 'state', 'queued', 'max_attempts', tonumber(rec.attempt) + allowed)
  -- A retried job is wanted now: its old start_by no longer holds, and it stands in line anew.
  redis.call('HDEL', job_key(id), 'failure', 'finished_at', 'start_by', 'worker', 'kept_at', 'suspect', 'place',
    'started_at', 'stages', 'code', 'group', 'failed_once')
  count_stats(rec.queue, 's', {submitted = 1})
  rec.place = nil
  emit(id, 'state', 'queued', rec.attempt, 'message', 'retried on request')
  return {'ok', enqueue(rec) or '', count_submitted(key, limits, used)}
end

local function purge_job(id, tenant)
  local rec = read(id)
  local refusal = refuse(rec, tenant)
  if refusal then return {refusal} end
  if not ENDS[rec.state] then return {'state', rec.state} end
  unlist(rec, rec.state)
  for _, key in ipairs(make_filter_keys(rec)) do call_anew('ZREM', key, id) end
  if rec.idem then redis.call('DEL', P .. ':idem:' .. rec.idem) end
  redis.call('DEL', job_key(id), P .. ':events:' .. id, segments_key(id))
  return {'ok'}
end
