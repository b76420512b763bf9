-- prefix, then of each report: id, token, stage, message, done, total, question_id, text, start
-- -> 'ok', 'cancel' or 'lost' for each
local function report(id, token, stage, message, done, total, question_id, text, start)
  local rec = read(id)
  local answer = fence(rec, token)
  if answer == 'lost' then return answer end
  local is_new = rec.stage ~= stage
  local event
  if text ~= '' then
    event = emit(id, 'text', rec.state, rec.attempt, 'stage', stage, 'question_id', question_id, 'text', text, 'start', start)
  else
    event = emit(id, is_new and 'stage' or 'progress', rec.state, rec.attempt, 'stage', stage, 'message', message, 'done', done,
      'total', total)
  end
  if not is_new then return answer end
  local seconds, ms = string.match(event, '^(%d+)(%d%d%d)%-') -- the event's time, so that the clock need not be asked
  set(id, 'stage', stage, 'stages', add_stage(rec, stage, (seconds or '0') .. '.' .. (ms or '0')))
  return answer
end

local answers = {}
for n = 2, #ARGV, 9 do answers[#answers + 1] = report(unpack(ARGV, n, n + 8)) end
return answers
