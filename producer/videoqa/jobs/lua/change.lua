-- Changes the jobs of one batch of a bulk action, and writes its progress in the same step: a process that is killed
-- leaves nothing that is done and not counted, and each job is looked at again, as it is now.
-- prefix, id of the action, holder, lease_s, kind, filter as JSON, tenant or '', API key's id or '', its limits or '',
-- number of jobs looked at, time and id of the last of these or '' at the end, time for which an ended one is kept, ids...
-- -> {'ok', the key's use, queues to ring...}, {'limit', its name, the key's use, queues...} or {'lost'}
local key, holder, kind, tenant = P .. ':bulk:' .. ARGV[2], ARGV[3], ARGV[5], ARGV[7]
local want = cjson.decode(ARGV[6])
local bulk = redis.call('HMGET', key, 'holder', 'status', 'refusals', 'refused')
if bulk[1] ~= holder or bulk[2] ~= 'running' then return {'lost'} end
local MOST_REFUSALS = 100
local refusals, refused, changed, used, limit = bulk[3] or '', num(bulk[4]) or 0, 0, '', nil

local function note_refusal(id, why)
  if refused < MOST_REFUSALS then refusals = refusals .. id .. ' ' .. why .. '\n' end
  refused = refused + 1
end

for n = 14, #ARGV do
  local id = ARGV[n]
  if select_record(want, id) == 'yes' then
    local reply
    if kind == 'cancel' then reply = cancel_job(id, tenant) end
    if kind == 'purge' then reply = purge_job(id, tenant) end
    if kind == 'retry' then reply = retry_job(id, tenant, ARGV[8], ARGV[9]) end
    if reply[1] == 'limit' then
      limit, used = reply[2], reply[3]
      break
    elseif reply[1] == 'ok' or reply[1] == 'canceled' or reply[1] == 'canceling' then
      changed = changed + 1
      if kind == 'retry' then
        add_ring(reply[2] ~= '' and reply[2] or nil)
        used = reply[3]
      end
    else
      note_refusal(id, reply[1] == 'unreadable' and 'record_unreadable' or reply[2] or reply[1])
    end
  end
end
redis.call('HINCRBY', key, 'changed', changed)
local fields = {'refused', refused, 'refusals', refusals, 'updated_at', stamp(now())}
local function add(field, value) fields[#fields + 1], fields[#fields + 2] = field, value end
if not limit then
  redis.call('HINCRBY', key, 'looked_at', ARGV[10])
  add('at', ARGV[11])
  add('at_id', ARGV[12])
end
local has_ended = limit or ARGV[11] == ''
if limit then
  add('status', 'stopped')
  add('message', 'the API key may queue no more jobs now: its limit ' .. limit .. ' is reached')
elseif has_ended then
  add('status', 'completed')
end
redis.call('HSET', key, unpack(fields))
if has_ended then
  redis.call('EXPIRE', key, ARGV[13])
  redis.call('ZREM', P .. ':bulks:due', ARGV[2])
else
  redis.call('ZADD', P .. ':bulks:due', stamp(now() + tonumber(ARGV[4])), ARGV[2])
end
if limit then return {'limit', limit, used, unpack(rings)} end
return {'ok', used, unpack(rings)}
