-- prefix, id, request, queue, max_attempts, timeout_s, ttl_s, start_by, idempotency key, body digest,
-- start_by default, most that may wait, tenant, filters by which it is listed, as JSON, or '',
-- final states that its webhook wants, or '', the webhook and what it is told of the job, as JSON, API key's id or '',
-- the key's limits or '', summary of the request as JSON, custom id or '', traceparent or ''
-- -> {'new', queue to ring or '', created_at, the key's use}, {'same'|'conflict', id}, {'full', waiting} or
-- {'limit', its name, the key's use}
local id, queue, idem, body, tenant = ARGV[2], ARGV[4], ARGV[9], ARGV[10], ARGV[13]
local filters = ARGV[14] ~= '' and ARGV[14] or nil
local recorded_at = get(id, 'created_at')[1]
if recorded_at then return {'new', queue, recorded_at} end -- a call repeated after a lost reply
if idem ~= '' then
  local key = P .. ':idem:' .. idem
  local have = call_anew('HMGET', key, 'id', 'body')
  if have[1] then
    if have[2] ~= body then return {'conflict', have[1]} end
    return {'same', have[1]}
  end
end
local before = redis.call('ZCARD', waiting(queue))
if before >= tonumber(ARGV[12]) then return {'full', tostring(before)} end
local limit, used = check_quota(ARGV[17], tenant, ARGV[18])
if limit then return {'limit', limit, used} end
local start_by = ARGV[8] == '' and now() + tonumber(ARGV[11]) or tonumber(ARGV[8])
local fields = {'request', ARGV[3], 'state', 'queued', 'queue', queue, 'attempt', 0, 'max_attempts', ARGV[5],
  'timeout_s', ARGV[6], 'ttl_s', ARGV[7], 'created_at', stamp(now()), 'place', stamp(now()), 'start_by', stamp(start_by)}
local function add(field, value) fields[#fields + 1], fields[#fields + 2] = field, value end
if tenant ~= '' then add('tenant', tenant) end
if filters then add('filters', filters) end
if ARGV[15] ~= '' then
  add('tells', ARGV[15])
  add('webhook', ARGV[16])
end
if ARGV[17] ~= '' then add('key', ARGV[17]) end
add('summary', ARGV[19])
if ARGV[20] ~= '' then add('custom_id', ARGV[20]) end
if ARGV[21] ~= '' then add('traceparent', ARGV[21]) end
if idem ~= '' then
  redis.call('HSET', P .. ':idem:' .. idem, 'id', id, 'body', body)
  add('idem', idem)
end
set(id, unpack(fields))
local rec = {id = id, tenant = tenant, created_at = stamp(now()), filters = filters}
list_in(rec, 'open')
for _, key in ipairs(make_filter_keys(rec)) do list_under(rec, key, true) end
redis.call('ZADD', P .. ':startby', stamp(start_by), id)
count_stats(queue, 's', {submitted = 1})
local ring = count_bell(queue, stand_in_line(id, queue, tenant, stamp(now())))
-- The first event of a job is not in its stream: see event_stream.py.
return {'new', ring or '', stamp(now()), count_submitted(ARGV[17], ARGV[18], used)}
