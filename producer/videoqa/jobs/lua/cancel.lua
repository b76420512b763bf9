-- prefix, id -> state after the call, or '' for an unknown id
local id = ARGV[2]
local rec = get(id, 'state', 'attempt')
if not rec[1] then return '' end
if rec[1] == 'queued' then
  cancel_now(id, rec[2], 'queued')
  return 'canceled'
end
if rec[1] == 'running' then
  set(id, 'state', 'canceling')
  emit(id, 'state', 'canceling', rec[2])
  return 'canceling'
end
return rec[1]
