-- prefix, then of each report: id, token, stage, message, done, total, question_id, text, start
-- -> 'ok', 'cancel' or 'lost' for each
local function report(id, token, stage, message, done, total, question_id, text, start)
  local rec = read(id)
  local answer = fence(rec, token)
  if answer == 'lost' then return answer end
  local is_new = rec.stage ~= stage
  if is_new then set(id, 'stage', stage) end
  if text ~= '' then
    emit(id, 'text', rec.state, rec.attempt, 'stage', stage, 'question_id', question_id, 'text', text, 'start', start)
    return answer
  end
  emit(id, is_new and 'stage' or 'progress', rec.state, rec.attempt, 'stage', stage, 'message', message, 'done', done, 'total', total)
  return answer
end

local answers = {}
for n = 2, #ARGV, 9 do answers[#answers + 1] = report(unpack(ARGV, n, n + 8)) end
return answers
