-- prefix, id, tenant -> {state after the call}, {'unknown'} or {'unreadable'}
local id = ARGV[2]
local refusal = refuse(id, ARGV[3])
if refusal then return {refusal} end
local rec = get(id, 'state', 'attempt')
if rec[1] == 'queued' then
  cancel_now(id, rec[2], 'queued')
  return {'canceled'}
end
if rec[1] == 'running' then
  set(id, 'state', 'canceling')
  emit(id, 'state', 'canceling', rec[2])
  return {'canceling'}
end
return {rec[1]}
