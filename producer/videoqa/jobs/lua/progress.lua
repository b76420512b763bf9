-- prefix, id, token, stage, message, done, total, question_id, text, start -> 'ok', 'cancel' or 'lost'
local id, stage = ARGV[2], ARGV[4]
local rec = read(id)
local answer = fence(rec, ARGV[3])
if answer == 'lost' then return answer end
if ARGV[9] ~= '' then
  emit(id, 'text', rec.state, rec.attempt, 'stage', stage, 'question_id', ARGV[8], 'text', ARGV[9],
    'start', ARGV[10])
  return answer
end
local kind = 'progress'
if rec.stage ~= stage then
  set(id, 'stage', stage)
  kind = 'stage'
end
emit(id, kind, rec.state, rec.attempt, 'stage', stage, 'message', ARGV[5], 'done', ARGV[6], 'total', ARGV[7])
return answer
