-- prefix, filter as JSON, position behind which to look or '', its id, most jobs to return, most to look at
-- -> {number looked at, {keys of the index}, {ids without record}, {time, id of the last that was looked at, if there
-- may be more}, {id, time, ...}}
local want = cjson.decode(ARGV[2])
local found, gone, keys, count, last = look_at(want, parse_position(ARGV[3], ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]))
local flat = {}
for _, one in ipairs(found) do flat[#flat + 1], flat[#flat + 2] = one.id, stamp(one.at) end
return {count, keys, gone, last and {stamp(last.at), last.id} or {}, flat}
