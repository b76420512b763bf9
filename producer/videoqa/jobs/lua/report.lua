-- prefix, then of each report: id, token, stage, message, done, total, question_id, text, start
-- -> 'ok', 'cancel' or 'lost' for each
local function report(id, token, stage, message, done, total, question_id, text, start)
  local rec = read(id)
  local answer = fence(rec, token)
  if answer == 'lost' then return answer end
  if text ~= '' then
    emit(id, 'text', rec.state, rec.attempt, 'stage', stage, 'question_id', question_id, 'text', text, 'start', start)
    return answer
  end
  local kind = 'progress'
  if rec.stage ~= stage then
    set(id, 'stage', stage)
    kind = 'stage'
  end
  emit(id, kind, rec.state, rec.attempt, 'stage', stage, 'message', message, 'done', done, 'total', total)
  return answer
end

local answers = {}
for n = 2, #ARGV, 9 do answers[#answers + 1] = report(unpack(ARGV, n, n + 8)) end
return answers
