-- prefix, id, token, stage, message, done, total -> 'ok', 'cancel' or 'lost'
local id, stage = ARGV[2], ARGV[4]
local answer, attempt = fence(id, ARGV[3])
if answer == 'lost' then return answer end
local rec = get(id, 'state', 'stage')
local kind = 'progress'
if rec[2] ~= stage then
  set(id, 'stage', stage)
  kind = 'stage'
end
emit(id, kind, rec[1], attempt, 'stage', stage, 'message', ARGV[5], 'done', ARGV[6], 'total', ARGV[7])
return answer
