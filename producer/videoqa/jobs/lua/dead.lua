-- prefix, tenant, seconds..., '' behind them, codes... -> for each code: numbers of the dead letters that failed within
-- each of these times, and of all
local spans, n = {}, 3
while ARGV[n] ~= '' do
  spans[#spans + 1] = tonumber(ARGV[n])
  n = n + 1
end
local rows = {}
for code = n + 1, #ARGV do
  local keys, row = make_list_keys({tenant = ARGV[2]}, 'dead', ARGV[code]), {}
  local all = redis.call('ZCARD', keys[#keys])
  for place, span in ipairs(spans) do
    row[place] = all > 0 and redis.call('ZCOUNT', keys[#keys], stamp(now() - span), '+inf') or 0
  end
  row[#row + 1] = all
  rows[#rows + 1] = row
end
return rows
