-- prefix, id, token, stage, message, done, total, question_id, text, start -> 'ok', 'cancel' or 'lost'
local id, stage = ARGV[2], ARGV[4]
local answer, attempt = fence(id, ARGV[3])
if answer == 'lost' then return answer end
local rec = get(id, 'state', 'stage')
if ARGV[9] ~= '' then
  emit(id, 'text', rec[1], attempt, 'stage', stage, 'question_id', ARGV[8], 'text', ARGV[9],
    'start', ARGV[10])
  return answer
end
local kind = 'progress'
if rec[2] ~= stage then
  set(id, 'stage', stage)
  kind = 'stage'
end
emit(id, kind, rec[1], attempt, 'stage', stage, 'message', ARGV[5], 'done', ARGV[6], 'total', ARGV[7])
return answer
