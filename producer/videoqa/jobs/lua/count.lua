-- prefix, filter as JSON, position behind which to look or '', its id, most to look at
-- -> {'exact', number} where an index has it, else {'looked', number selected, number looked at, time and id of the last
-- of these if there may be more}
local want = cjson.decode(ARGV[2])
local keys, is_covered = choose_index(want)
if is_covered then
  local low, high = find_range(want)
  local count = 0
  for _, key in ipairs(keys) do count = count + redis.call('ZCOUNT', key, low, high) end
  return {'exact', count}
end
local most = tonumber(ARGV[5])
local found, _, _, count, last = look_at(want, parse_position(ARGV[3], ARGV[4]), most + 1, most)
return {'looked', #found, count, last and stamp(last.at) or '', last and last.id or ''}
