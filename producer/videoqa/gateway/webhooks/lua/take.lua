-- Moves entries of the outbox into deliveries, and leases those whose turn it is to the caller.
-- prefix, most to take, most of them of unproven receivers, most under way per receiver, lease_s, most entries
-- -> {number of entries that were moved, time until the next delivery is due or '', {id, fields, 1 if its URL is gone, 1 if its receiver is unproven}, ...}
local wanted, wanted_unproven, most = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local lease_s, most_entries = tonumber(ARGV[5]), tonumber(ARGV[6])
local outbox = ARGV[1] .. ':outbox'

-- An entry leaves the outbox in the same step in which its delivery is there, so that none needs a second look.
local function admit(entry_id, pairs_of)
  local entry = {}
  for n = 1, #pairs_of, 2 do entry[pairs_of[n]] = pairs_of[n + 1] end
  local is_json, webhook = pcall(cjson.decode, entry.webhook or '')
  if not is_json or type(webhook) ~= 'table' then return end
  if type(webhook.url) ~= 'string' or type(webhook.receiver) ~= 'string' then return end
  if not string.find(entry.job or '', '^job_%x+$') or #entry.job > 64 or not num(entry.at) then return end
  local rec = {id = 'whd_' .. string.sub(entry.job, 5) .. '_' .. string.gsub(entry_id, '-', '_'), job = entry.job,
    tenant = entry.tenant or '', url = webhook.url, receiver = webhook.receiver, at = entry.at}
  rec.lane = quote(rec.tenant) .. '|' .. rec.receiver
  redis.call('DEL', delivery_key(rec.id))
  redis.call('HSET', delivery_key(rec.id), 'id', rec.id, 'job', rec.job, 'tenant', rec.tenant, 'url', rec.url, 'receiver',
    rec.receiver, 'at', rec.at, 'state', entry.state or '', 'attempt', entry.attempt or '', 'created_at',
    entry.created_at or '', 'failure', entry.failure or '', 'webhook', entry.webhook, 'status', 'pending', 'attempts', 0,
    'next_at', stamp(now))
  redis.call('EXPIRE', delivery_key(rec.id), KEEP_S)
  list_in(rec, 'pending')
  call_anew('ZADD', P .. ':job:' .. rec.job, rec.at, rec.id)
  redis.call('EXPIRE', P .. ':job:' .. rec.job, KEEP_S)
  make_due(rec, now)
  place(rec.lane, most)
end

local moved = 0
local reply = most_entries > 0 and redis.pcall('XREAD', 'COUNT', most_entries, 'STREAMS', outbox, '0')
if type(reply) == 'table' and not reply.err and reply[1] then
  for _, entry in ipairs(reply[1][2]) do
    admit(entry[1], entry[2])
    redis.call('XDEL', outbox, entry[1])
    moved = moved + 1
  end
end

local taken = {moved, ''}
local function take_from(key, count, most_flying, unproven)
  for _, lane in ipairs(call_anew('ZRANGEBYSCORE', key, '-inf', stamp(now), 'LIMIT', 0, count)) do
    call_anew('ZREMRANGEBYSCORE', flying(lane), '-inf', stamp(now))
    if redis.call('ZCARD', flying(lane)) < most_flying then
      local id = call_anew('ZRANGEBYSCORE', due(lane), '-inf', stamp(now), 'LIMIT', 0, 1)[1]
      local rec = id and read(id)
      if id and (not rec or rec.status ~= 'pending') then
        redis.call('ZREM', due(lane), id)
      elseif id then
        redis.call('ZADD', due(lane), stamp(now + lease_s), id)
        redis.call('ZADD', flying(lane), stamp(now + lease_s), id)
        redis.call('EXPIRE', flying(lane), KEEP_S)
        redis.call('HSET', delivery_key(id), 'attempts', math.floor(num(rec.attempts) or 0) + 1)
        local is_gone = call_anew('ZSCORE', GONE, gone_member(rec)) and 1 or 0
        taken[#taken + 1] = {id, redis.call('HGETALL', delivery_key(id)), is_gone, unproven}
      end
    end
    place(lane, most)
  end
end

if wanted > 0 then take_from(RECEIVERS, wanted, most, 0) end
wanted_unproven = math.min(wanted_unproven, wanted - #taken + 2)
if wanted_unproven > 0 then take_from(UNPROVEN, wanted_unproven, 1, 1) end
-- Nothing is free for those that are due already: the caller comes back when it is.
for _, key in ipairs({RECEIVERS, UNPROVEN}) do
  local first = tonumber(call_anew('ZRANGE', key, 0, 0, 'WITHSCORES')[2])
  if first and first > now and (taken[2] == '' or first - now < tonumber(taken[2])) then taken[2] = stamp(first - now) end
end
return taken
