-- Makes a delivery due again, with all its attempts; a URL that was gone is called again. prefix, id, tenant or ''
-- -> 1, or 0 if there is none
local id, tenant = ARGV[2], ARGV[3]
local rec = read(id)
if not rec or (tenant ~= '' and rec.tenant ~= tenant) then return 0 end
redis.call('HSET', delivery_key(id), 'attempts', 0, 'next_at', stamp(now))
redis.call('EXPIRE', delivery_key(id), KEEP_S)
move(rec, 'pending')
call_anew('ZREM', GONE, gone_member(rec))
if not call_anew('ZSCORE', flying(rec.lane), id) then make_due(rec, now) end
place(rec.lane, nil)
return 1
