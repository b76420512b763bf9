-- Selection of jobs by a filter, for lists, counts and bulk actions; it stands behind common.lua. A filter is the table
-- that `JobSelection.to_json` of selection.py writes.
local MOST_RECORDS = 1000 -- whose fields one call reads

local function has_state(want, state)
  if not want.states then return true end
  for _, one in ipairs(want.states) do
    if one == state then return true end
  end
  return false
end

local function list_of(want, state, filter)
  local keys = make_list_keys({tenant = want.tenant or ''}, state, filter or '')
  return keys[#keys]
end

-- Returns the keys of the smallest index that has all selected jobs, and true if it has no others within its times.
-- Dead letters are indexed by the time of their failure, all else by the time of the submission.
local function choose_index(want)
  local besides = #want.names
  for _, field in ipairs({'worker', 'custom_id', 'job_id'}) do
    if want[field] then besides = besides + 1 end
  end
  if want.is_dead then -- a cut-off is a time of failure as well
    if want.group or want.since or want['until'] then besides = besides + 1 end
    return {list_of(want, 'dead', want.code)}, besides == 0
  end
  if want.ended_since or want.ended_until then besides = besides + 1 end
  if want.cut_off then besides = besides + 1 end
  local choices = {}
  for _, name in ipairs(want.names) do choices[#choices + 1] = {list_of(want, 'any', name)} end
  local is_listed = true -- jobs in these states, and no others, have a list
  if want.states then
    local finals, has_open, has_queued = {}, false, false
    for _, state in ipairs(want.states) do
      if ENDS[state] then finals[#finals + 1] = list_of(want, state) else has_open = true end
      if state == 'queued' then has_queued = true end
    end
    is_listed = not has_open or (has_queued and has_state(want, 'running') and has_state(want, 'canceling'))
    if has_open then finals[#finals + 1] = list_of(want, 'open') end
    choices[#choices + 1] = finals
    if has_open and not has_queued and #finals == 1 then
      local queues = {}
      for n, queue in ipairs(redis.call('ZRANGE', QUEUES, 0, -1)) do queues[n] = running(queue) end
      choices[#choices + 1] = queues
    end
  elseif #choices == 0 then
    choices[1] = {list_of(want, 'open')}
    for state in pairs(ENDS) do table.insert(choices[1], list_of(want, state)) end
  end
  local best, least = nil, math.huge
  for _, keys in ipairs(choices) do
    local size = 0
    if #choices > 1 then
      for _, key in ipairs(keys) do size = size + redis.call('ZCARD', key) end
    end
    if size < least then best, least = keys, size end
  end
  local criteria = besides + (want.states and 1 or 0)
  return best, criteria == 0 or (criteria == 1 and (#want.names == 1 or (want.states and besides == 0 and is_listed)))
end

-- Returns the ends of the scores in an index, as ZCOUNT takes them.
local function find_range(want)
  local low, high = want.since, want['until']
  if want.is_dead then low, high = want.ended_since, want.ended_until end
  local low_text = low and stamp(low) or '-inf'
  if want.is_dead and want.cut_off and want.cut_off < (high or math.huge) then return low_text, stamp(want.cut_off) end
  return low_text, high and '(' .. stamp(high) or '+inf'
end

-- Tells if a position comes before another one: newest first, or oldest first.
local function is_before(want, a, b)
  if want.ascending then a, b = b, a end
  if a.at ~= b.at then return a.at > b.at end
  return a.id > b.id
end

-- Returns up to `most` positions of an index behind `after`, and true if it may have more. What is no job's id is left
-- out: an id with odd bytes could be no cursor.
local function read_positions(want, keys, after, most)
  local low, high = find_range(want)
  local first, last, command = high, low, 'ZREVRANGEBYSCORE'
  if want.ascending then first, last, command = low, high, 'ZRANGEBYSCORE' end
  local bound = num(string.match(first, '[%d.]+$'))
  if after and (not bound or (want.ascending and after.at >= bound) or (not want.ascending and after.at < bound)) then
    first = stamp(after.at)
  end
  local skipped = after and 1 or 0
  while true do
    local all, has = {}, {}
    for _, key in ipairs(keys) do
      local found = redis.call(command, key, first, last, 'WITHSCORES', 'LIMIT', 0, most + skipped)
      for n = 1, #found, 2 do
        local at = tonumber(found[n + 1])
        if at and not has[found[n]] then
          has[found[n]] = true
          all[#all + 1] = {id = found[n], at = at}
        end
      end
    end
    if #keys > 1 then table.sort(all, function(a, b) return is_before(want, a, b) end) end
    local has_more, found = #all >= most + skipped, {}
    for n = 1, math.min(#all, most + skipped) do
      local one = all[n]
      local is_job = #one.id == 31 and string.find(one.id, '^job_%x+$') and one.at > -1 and one.at < 1e12
      if #found < most and is_job and (not after or is_before(want, after, one)) then found[#found + 1] = one end
    end
    if #found > 0 or not has_more then return found, has_more end
    skipped = skipped + most -- as many jobs as that were submitted at the very time of the cursor, or are none
  end
end

-- The fields of a record that a part of a filter looks at, besides its state.
local FIELDS_OF = {tenant = {'tenant'}, code = {'code'}, group = {'group'}, worker = {'worker'},
  custom_id = {'custom_id'}, since = {'created_at'}, ['until'] = {'created_at'}, ended_since = {'finished_at'},
  ended_until = {'finished_at'}, cut_off = {'finished_at', 'started_at', 'place', 'created_at'}}

-- Returns the fields that a filter looks at: a walk reads thousands of records.
local function list_fields(want)
  local fields, has = {'state'}, {}
  for part, names in pairs(FIELDS_OF) do
    for _, name in ipairs(want[part] and names or {}) do
      if not has[name] then fields[#fields + 1], has[name] = name, true end
    end
  end
  if #want.names > 0 then fields[#fields + 1] = 'filters' end
  return fields
end

-- Tells if a record stands in all lists that the filter names. `quoted` has their names as submission.py writes them:
-- a record without them need not be parsed.
local function has_names(want, rec)
  for _, quoted in ipairs(want.quoted) do
    if not string.find(rec.filters or '', quoted, 1, true) then return false end
  end
  local has = {}
  for _, name in ipairs(parse_filters(rec)) do has[name] = true end
  for _, name in ipairs(want.names) do
    if not has[name] then return false end
  end
  return true
end

local function begins_with(text, beginning) return string.sub(text or '', 1, #beginning) == beginning end
local function is_within(at, low, high)
  return not (low or high) or (at and at >= (low or -math.huge) and at < (high or math.huge)) or false
end

-- Returns the time since when a job is in its state, as far as a cut-off needs it.
local function find_entry(rec)
  if ENDS[rec.state] then return num(rec.finished_at) end
  if rec.state == 'running' then return num(rec.started_at) end
  return num(rec.place) or num(rec.created_at)
end

-- Tells if a record is selected: 'yes', 'no', or 'gone' if there is none.
local function select_record(want, id)
  want.fields = want.fields or list_fields(want)
  local values, rec = get(id, unpack(want.fields)), {}
  for n, field in ipairs(want.fields) do rec[field] = values[n] and values[n] ~= '' and values[n] or nil end
  if not rec.state then return redis.call('EXISTS', job_key(id)) == 1 and 'no' or 'gone' end
  if want.tenant and want.tenant ~= '' and rec.tenant ~= want.tenant then return 'no' end
  if not has_state(want, rec.state) then return 'no' end
  if want.is_dead and want.code and rec.code ~= want.code then return 'no' end
  if want.group and rec.group ~= want.group then return 'no' end
  if want.worker and rec.worker ~= want.worker then return 'no' end
  if want.custom_id and not begins_with(rec.custom_id, want.custom_id) then return 'no' end
  if want.job_id and not begins_with(id, want.job_id) then return 'no' end
  if not is_within(num(rec.created_at), want.since, want['until']) then return 'no' end
  if not is_within(num(rec.finished_at), want.ended_since, want.ended_until) then return 'no' end
  if want.cut_off then
    local entry = find_entry(rec)
    -- A queued job may be a running one by now, and is of the selection then.
    if want.has_open and rec.state == 'running' then entry = num(rec.place) or num(rec.created_at) end
    if not entry or entry > want.cut_off then return 'no' end
  end
  if #want.names > 0 and not has_names(want, rec) then return 'no' end
  return 'yes'
end

-- Returns the position of the only job that an id names, behind `after`.
local function read_one(want, after)
  local at = num(get(want.job_id, want.is_dead and 'finished_at' or 'created_at')[1])
  local one = at and {id = want.job_id, at = at}
  if one and (not after or is_before(want, after, one)) then return {one} end
  return {}
end

-- Looks at positions behind `after`: up to `most` of them, or until `limit` are selected. Returns the selected ones,
-- the ids without a record, the keys of the index, the number looked at, and the last of these if there may be more.
local function look_at(want, after, limit, most)
  if want.job_id and #want.job_id == 31 then
    local found = {}
    for _, one in ipairs(read_one(want, after)) do
      if select_record(want, one.id) == 'yes' then found[1] = one end
    end
    return found, {}, {}, 1, nil
  end
  local keys, is_covered = choose_index(want)
  local positions, has_more = read_positions(want, keys, after, math.min(most, is_covered and limit or MOST_RECORDS))
  if is_covered then return positions, {}, keys, #positions, has_more and positions[#positions] or nil end
  local found, gone = {}, {}
  for n, one in ipairs(positions) do
    local how = select_record(want, one.id)
    if how == 'yes' then found[#found + 1] = one end
    if how == 'gone' then gone[#gone + 1] = one.id end
    if #found == limit and (n < #positions or has_more) then return found, gone, keys, n, one end
  end
  return found, gone, keys, #positions, has_more and positions[#positions] or nil
end

-- Returns the position that a cursor names, or nothing.
local function parse_position(at, id) return at ~= '' and {at = tonumber(at), id = id} or nil end
