-- prefix, id, tenant -> {state after the call}, {'unknown'} or {'unreadable'}
local id = ARGV[2]
local rec = read(id)
local refusal = refuse(rec, ARGV[3])
if refusal then return {refusal} end
if rec.state == 'queued' then
  cancel_now(rec, 'queued')
  return {'canceled'}
end
if rec.state == 'running' then
  set(id, 'state', 'canceling')
  emit(id, 'state', 'canceling', rec.attempt)
  return {'canceling'}
end
return {rec.state}
